"""Bytes ↔ values, and nothing else: no event loop, no clock, no network."""
