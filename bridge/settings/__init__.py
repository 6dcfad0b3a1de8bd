"""What can be set: one table for a step (`step`), one for the process (`server`); and what values may be (`kinds`)."""
