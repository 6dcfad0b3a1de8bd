"""Run one event, from its first message to its last frame.

`runner` drives the chain of steps. `attempt` makes one provider call, and `stream_relay` passes its stream on. `plan`
resolves the steps, `failures` maps errors to outcomes, and `event_state` collects what is reported. `deadlines` and
`memory` bound an event's time and memory; `second_buckets` holds the deadlines of all events that are not near.
"""
