"""Host names and ports: one spelling for each, and the list of those that may be asked, or told. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from mesh.errors import SetupError

__all__ = ["PORTS", "AllowedHosts", "plain_address", "split_authority"]

PORTS = {"http": 80, "https": 443}
"""The schemes that are taken, and the port of each."""

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""Of the last label: what https://url.spec.whatwg.org/#ends-in-a-number-checker takes for an IPv4 address."""


def plain_address(text: str) -> str | None:
    """The usual spelling of a numeric address; None for anything else.

    Octal, hexadecimal and shortened IPv4 (0177.0.0.1, 0x7f.1, 2130706433) and IPv6 zones are not taken: programs
    differ in what they make of them.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else str(address)


def split_authority(text: str) -> tuple[str, int | None]:
    """Host, in small letters and IPv6 in brackets, and port, None where none is written.

    Raises:
        ValueError: It is neither a name in ASCII nor an address in its usual spelling, or the port is none.
    """
    matched = _AUTHORITY.fullmatch(text)
    if matched is None:
        raise ValueError("that is no host name in plain ASCII and no address")
    port = int(matched[3]) if matched[3] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("there is no such port")
    if matched[1]:
        address = plain_address(matched[1])
        if address is None or ":" not in address:
            raise ValueError("that is no IPv6 address")
        return f"[{address}]", port
    host = matched[2].lower()
    labels = host.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        if plain_address(host) is None:
            raise ValueError("IPv4 addresses are written as four decimal numbers without leading zeros")
    elif not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("that is no host name")
    return host, port


class AllowedHosts:
    """The hosts of a list.

    Args:
        entries: Each `host` or `host:port`, where `host` is a name, an address, or `*.example.com` for every name
            below example.com (and not itself). Without a port, that of the scheme is meant, and no other.
        told: How the list is told of where an entry is wrong, up to the entry.

    Raises:
        SetupError: An entry is none of these.
    """

    def __init__(self, entries: Iterable[str], told: str = "hosts has") -> None:
        self._exact: set[tuple[str, int | None]] = set()
        self._below: set[tuple[str, int | None]] = set()
        for entry in entries:
            below = entry.startswith("*.")
            try:
                host, port = split_authority(entry[2:] if below else entry)
                if below and (plain_address(host.strip("[]")) is not None):
                    raise ValueError("an address has no names below it")
            except ValueError as error:
                raise SetupError(f"{told} {entry!r}: {error}") from None
            (self._below if below else self._exact).add((host, port))

    def __bool__(self) -> bool:
        return bool(self._exact or self._below)

    def allow(self, host: str, port: int, usual_port: int | None) -> bool:
        """Whether `host`, as `split_authority` spells it, is on the list with `port`.

        Args:
            host: Whom.
            port: Where.
            usual_port: The port that an entry without one means; None where there is none.
        """
        ports = (port, None) if port == usual_port else (port,)
        if any((host, one) in self._exact for one in ports):
            return True
        labels = host.split(".")
        parents = (".".join(labels[start:]) for start in range(1, len(labels)))
        return any((parent, one) in self._below for parent in parents for one in ports)
