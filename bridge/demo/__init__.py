"""`bridge demo`: runs a bridge, providers played from tapes and a client in one process, without a network."""
