"""Recorded exchanges with providers: the file formats, recording, replay and imports from other tools."""
