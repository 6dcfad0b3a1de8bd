"""The commands of `bridge logs`: `commands` declares them, `filters` parses options, `table` and `actions` print."""
