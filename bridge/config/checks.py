"""Checks across settings: readable TLS files, the open-gateway rule, keepalive timeouts."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from bridge.config.gateways import Gateway
from bridge.config.problems import Location, Report
from bridge.settings.server import ServerSettings


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach `host`.

    True for a loopback address, with or without brackets, and for `localhost`.
    """
    host = host.lower().removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_tls(report: Report, server: ServerSettings, locations: Mapping[str, Location]) -> None:
    for name, path, other in (
        ("tls_cert", server.tls_cert, "tls_key"),
        ("tls_key", server.tls_key, "tls_cert"),
    ):
        if path and other not in locations:
            report.add(locations[name], f"{name} requires {other}")
        if path and (reason := _unreadable(path)):
            report.add(locations[name], f"{path} cannot be read: {reason}")


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return error.strerror


def check_open(
    report: Report, server: ServerSettings, locations: Mapping[str, Location], gateways: Mapping[str, Gateway]
) -> None:
    names = ", ".join(f'"{gateway.name}"' for gateway in gateways.values() if gateway.is_open)
    if names and not server.allow_open and not is_loopback(server.host):
        report.add(
            locations["host"],
            f"{server.host} can be reached from other machines, and these gateways have no tokens: {names}. "
            "Give each of them tokens, listen on 127.0.0.1, or set --allow-open (allow_open = true).",
        )


def check_liveness(report: Report, server: ServerSettings, locations: Mapping[str, Location]) -> None:
    if server.peer_timeout <= server.ping_interval:
        report.add(
            locations.get("peer_timeout") or locations["ping_interval"],
            f"peer_timeout ({server.peer_timeout}) must be more than ping_interval ({server.ping_interval})",
        )
