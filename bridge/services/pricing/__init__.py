"""Prices: compute the cost of an event from its usage, by the price list or the gateway's own prices."""
