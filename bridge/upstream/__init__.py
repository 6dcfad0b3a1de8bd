"""The way to the providers: the only rooms that speak httpx."""
