"""Metrics: definitions, counters shared by worker processes, and the Prometheus exposition."""
