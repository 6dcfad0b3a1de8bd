"""Processes: the supervisor and its workers, listening sockets, signals and configuration reload."""
