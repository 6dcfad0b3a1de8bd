"""Limits of a gateway: rates, budgets and concurrency, in memory, in a file and in Redis."""
