"""The log: what a line looks like (`lines`), and how it is written without ever keeping anybody waiting (`handler`)."""
