"""`python -m bridge`: the same as the command `bridge`."""

from bridge.cli import main

main()
