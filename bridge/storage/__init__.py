"""I/O to disk and to Redis."""
