"""Support for tests of software that uses a bridge: a bridge that plays tapes, and golden transcripts of its frames.

`bridge.testing.plugin` provides the fixtures; other modules are imported only when a test requests one.
"""
