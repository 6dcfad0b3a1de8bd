"""Facts, now and chance in; a decision out. Nothing here waits, reads a clock or rolls a die."""
