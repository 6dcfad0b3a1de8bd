"""What `bridge tapes` does: looks at tapes, and makes some from what other tools recorded."""
