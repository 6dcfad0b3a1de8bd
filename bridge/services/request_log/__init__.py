"""The request log: one row per event in SQLite, written by a thread, pruned by shares, read by `bridge logs`."""
