"""Decide about steps, retries, keys and scopes. Pure: time and random numbers are arguments."""
