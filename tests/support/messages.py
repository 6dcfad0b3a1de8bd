"""Ways to write a client's message, and what must become of it."""

import json

from bridge.errors import BridgeError
from bridge.protocol.messages import Cancel, Create, MessageLimits, ProviderStep, RejectedMessage, parse
from bridge.settings.step import StepSettings

SETTINGS = StepSettings()
LIMITS = MessageLimits()


def create(request: str | bytes, **beside: str) -> bytes:
    """A `universal.create` whose `request`, and what stands `beside` it, are JSON texts."""
    request = request.encode() if isinstance(request, str) else request
    members = "".join(f'"{name}":{text},' for name, text in beside.items()).encode()
    return b'{"type":"universal.create",%b"request":%b}' % (members, request)


def read(
    data: bytes, settings: StepSettings = SETTINGS, limits: MessageLimits = LIMITS
) -> Create | Cancel | RejectedMessage:
    return parse(data, settings, limits)


def created(
    request: str | bytes, settings: StepSettings = SETTINGS, limits: MessageLimits = LIMITS, **beside: str
) -> Create:
    message = read(create(request, **beside), settings, limits)
    assert isinstance(message, Create), message
    return message


def step(members: str, settings: StepSettings = SETTINGS) -> ProviderStep:
    """The only step of a request of which `members` are what a test is about."""
    [only] = created(f'{{"provider":"openai","endpoint":"",{members}}}', settings).steps
    return only


def refused(data: bytes, limits: MessageLimits = LIMITS) -> RejectedMessage:
    message = read(data, limits=limits)
    assert isinstance(message, RejectedMessage), message
    return message


def fault(request: str | bytes, limits: MessageLimits = LIMITS) -> BridgeError:
    """What is wrong with a `request`; the fault is its event's."""
    message = refused(create(request), limits)
    assert message.owned
    return message.error


def quoted(value: object) -> str:
    return json.dumps(value)
