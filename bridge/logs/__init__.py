"""The log: the format of a line (`format`), a handler that never blocks its caller (`handler`), and terminal output."""
