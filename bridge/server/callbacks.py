"""The default of optional callbacks."""


def ignore(*_: object) -> None:
    """Do nothing with the arguments."""
