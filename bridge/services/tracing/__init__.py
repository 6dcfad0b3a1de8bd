"""Traces: spans of an event, batches of them, and their export over OTLP."""
