"""Build client messages, and check the result of parsing them."""

import json

from bridge.errors import BridgeError
from bridge.protocol.messages import Cancel, Create, MessageLimits, ProviderStep, RejectedMessage, parse
from bridge.settings.step import StepSettings

SETTINGS = StepSettings()
LIMITS = MessageLimits()


def create(request: str | bytes, **beside: str) -> bytes:
    """Return a `universal.create` whose `request`, and the members `beside` it, are JSON texts."""
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
    """Return the only step of a request with these members."""
    [only] = created(f'{{"provider":"openai","endpoint":"",{members}}}', settings).steps
    return only


def refused(data: bytes, limits: MessageLimits = LIMITS) -> RejectedMessage:
    """Return the rejected message."""
    message = read(data, limits=limits)
    assert isinstance(message, RejectedMessage), message
    return message


def fault(request: str | bytes, limits: MessageLimits = LIMITS) -> BridgeError:
    """Return the error of a `request`, which must be sent as the last frame of its event."""
    message = refused(create(request), limits)
    assert message.owned
    return message.error


def quoted(value: object) -> str:
    return json.dumps(value)
