"""The commands of `bridge tapes`: list, show, check and import."""
