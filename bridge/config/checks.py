"""What is wrong with settings that are each right by themselves: files, the open-gateway rule, deadlines."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from bridge.config.gateways import Gateway
from bridge.config.problems import Location, Report
from bridge.settings.server import ServerSettings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: a loopback address, with or without brackets, or `localhost`."""
    host = host.lower().removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_tls(report: Report, server: ServerSettings, places: Mapping[str, Location]) -> None:
    for name, path, other in (
        ("tls_cert", server.tls_cert, "tls_key"),
        ("tls_key", server.tls_key, "tls_cert"),
    ):
        if path and other not in places:
            report.add(places[name], f"{name} is of no use without {other}")
        if path and (why := _unreadable(path)):
            report.add(places[name], f"{path} cannot be read: {why}")


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return error.strerror


def check_open(
    report: Report, server: ServerSettings, places: Mapping[str, Location], gateways: Mapping[str, Gateway]
) -> None:
    names = ", ".join(f'"{gateway.name}"' for gateway in gateways.values() if gateway.is_open)
    if names and not server.allow_open and not is_loopback(server.host):
        report.add(
            places["host"],
            f"{server.host} can be reached from other machines, and these gateways have no tokens: {names}. "
            "Give each of them tokens, or listen on 127.0.0.1, or say --allow-open (allow_open = true).",
        )


def check_liveness(report: Report, server: ServerSettings, places: Mapping[str, Location]) -> None:
    if server.peer_timeout <= server.ping_interval:
        report.add(
            places.get("peer_timeout") or places["ping_interval"],
            f"peer_timeout ({server.peer_timeout}) must be more than ping_interval ({server.ping_interval})",
        )
