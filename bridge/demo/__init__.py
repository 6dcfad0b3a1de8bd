"""`bridge demo`: a bridge, providers played from tape and a client, all in one process and without a network."""
