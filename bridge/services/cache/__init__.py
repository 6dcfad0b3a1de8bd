"""The response cache: keys, stored responses, coalesced calls, and stores in memory, SQLite and Redis."""
