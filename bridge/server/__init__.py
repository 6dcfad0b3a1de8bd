"""The server: routes, authentication, connections and sessions of clients. Reads sockets; calls the relay."""
