"""Calls to providers: the transport below httpx, content decoding, and realtime connections."""
