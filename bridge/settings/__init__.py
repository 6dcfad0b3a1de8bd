"""Settings: the table for one step (`step`), the table for the process (`server`), and value types (`kinds`)."""
