"""Ways to write a client's message, and what must become of it."""

import json

from bridge.errors import BridgeError
from bridge.settings.step import StepSettings
from bridge.wire.messages import Cancel, Create, Limits, Refused, Step, parse

SETTINGS = StepSettings()
LIMITS = Limits()


def create(request: str | bytes, **beside: str) -> bytes:
    """A `universal.create` whose `request`, and what stands `beside` it, are JSON texts."""
    request = request.encode() if isinstance(request, str) else request
    members = "".join(f'"{name}":{text},' for name, text in beside.items()).encode()
    return b'{"type":"universal.create",%b"request":%b}' % (members, request)


def read(data: bytes, settings: StepSettings = SETTINGS, limits: Limits = LIMITS) -> Create | Cancel | Refused:
    return parse(data, settings, limits)


def created(request: str | bytes, settings: StepSettings = SETTINGS, limits: Limits = LIMITS, **beside: str) -> Create:
    message = read(create(request, **beside), settings, limits)
    assert isinstance(message, Create), message
    return message


def step(members: str, settings: StepSettings = SETTINGS) -> Step:
    """The only step of a request of which `members` are what a test is about."""
    [only] = created(f'{{"provider":"openai","endpoint":"",{members}}}', settings).steps
    return only


def refused(data: bytes, limits: Limits = LIMITS) -> Refused:
    message = read(data, limits=limits)
    assert isinstance(message, Refused), message
    return message


def fault(request: str | bytes, limits: Limits = LIMITS) -> BridgeError:
    """What is wrong with a `request`; the fault is its event's."""
    message = refused(create(request), limits)
    assert message.owned
    return message.error


def quoted(value: object) -> str:
    return json.dumps(value)
