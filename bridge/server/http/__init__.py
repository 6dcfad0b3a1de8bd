"""Events over plain HTTP: routes, one handler per request, and the writer of its response."""
