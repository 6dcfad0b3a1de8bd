"""The wire protocol: parse client messages and build server frames. Pure: no event loop, clock or network."""
