"""For tests of software that talks to a bridge: one that plays tapes, and transcripts of what it says.

`bridge.testing.plugin` makes fixtures of it; nothing here is imported before a test asks for one.
"""
