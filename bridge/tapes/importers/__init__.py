"""Importers of exchanges that other tools recorded: HAR archives and VCR cassettes."""
