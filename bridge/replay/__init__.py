"""A server that plays tapes to clients, over HTTP and WebSockets."""
