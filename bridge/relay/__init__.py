"""One event, from its first message to its last frame.

`event_relay` drives the chain. An `attempt` is one provider call; a `passage` passes its stream on. `plan` says what
can be called, `outcomes` what a failure means, `record` what is told of it all. `deadlines` and `budget` bound it.
"""
