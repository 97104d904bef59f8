"""Targets and the addresses they stand for (https://github.com/grpc/grpc/blob/master/doc/naming.md).

host:port   dns:host:port   dns:///host:port   looked up when connecting, and again when a connection is gone
ipv4:1.2.3.4:50051,5.6.7.8:50051               any number of addresses
ipv6:[::1]:50051,[::2]:50051
unix:path   unix:///absolute/path   unix-abstract:name
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["Address", "NotResolved", "Target", "parse_target", "resolve"]

DEFAULT_PORT = 443
"""What gRPC takes where a name has no port."""
MOST_ADDRESSES = 256
"""Most addresses of one name that are used."""


class NotResolved(OSError):
    """A name for which there is no address."""


@dataclass(frozen=True, slots=True)
class Address:
    """One place to connect to: a path, or a numeric host and a port."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}" if self.path[0] != "\0" else f"unix-abstract:{self.path[1:]}"
        return f"ipv6:[{self.host}]:{self.port}" if ":" in self.host else f"ipv4:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target, read."""

    text: str
    authority: str
    """What a server is told as the host, unless an option says otherwise."""
    name: str
    """The name that its certificate has to have."""
    addresses: tuple[Address, ...] = ()
    """Empty where `name` has to be looked up."""
    port: int = 0


def parse_target(text: str) -> Target:
    """Read a target.

    Raises:
        ValueError: It is none that is known; says what is.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        path = rest.removeprefix("//") if scheme == "unix" else "\0" + rest
        if path in ("", "\0"):
            raise ValueError(f"the target {text!r} has no path")
        return Target(text=text, authority="localhost", name="localhost", addresses=(Address(path=path),))
    if colon and scheme in ("ipv4", "ipv6"):
        return _literal(text, rest.removeprefix("///"), 4 if scheme == "ipv4" else 6)
    if colon and scheme == "dns":
        if rest.startswith("//"):
            server, slash, rest = rest[2:].partition("/")
            if server or not slash:
                raise ValueError(f"the target {text!r} names a name server, which is not supported: dns:///host:port")
        return _named(text, unquote(rest))
    if "://" in text:
        raise ValueError(f"the target {text!r} is none of host:port, dns:, ipv4:, ipv6:, unix:, unix-abstract:")
    return _named(text, text)


def _split(text: str, place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = place, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"the target {text!r} has no host and port in {place!r}")
    return host, int(port)


def _literal(text: str, places: str, version: int) -> Target:
    found: list[Address] = []
    for place in places.split(","):
        host, port = _split(text, place)
        try:
            if ipaddress.ip_address(host.partition("%")[0]).version != version:
                raise ValueError
        except ValueError:
            raise ValueError(f"the target {text!r} has no IPv{version} address in {place!r}") from None
        found.append(Address(host, port))
    host, port = found[0].host, found[0].port
    authority = f"[{host}]:{port}" if version == 6 else f"{host}:{port}"
    return Target(text=text, authority=authority, name=host, addresses=tuple(found))


def _named(text: str, place: str) -> Target:
    host, port = _split(text, place)
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Target(text=text, authority=place, name=host, port=port)
    return Target(text=text, authority=place, name=host, addresses=(Address(host, port),))


async def resolve(target: Target) -> Sequence[Address]:
    """The addresses of a target, in the order in which they are to be tried.

    Raises:
        NotResolved: There is none.
    """
    if target.addresses:
        return target.addresses
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.name, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotResolved(f"no address for {target.name}: {error}") from None
    places = dict.fromkeys(
        Address(str(place[0]), int(place[1]))
        for family, _, _, _, place in found
        if family in (socket.AF_INET, socket.AF_INET6)
    )
    if not places:
        raise NotResolved(f"no address for {target.name}")
    return list(places)[:MOST_ADDRESSES]
