"""Which hosts may be told of a job's end, and at which addresses. Pure.

The list stands in the topology; a request only chooses from it. A name on the list does not open the machine itself,
nor what a cloud keeps at fixed addresses: those are for entries that spell them out, so that nobody who may change a
name in the DNS can turn a callback against the mesh's own hosts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from mesh.errors import SetupError

__all__ = ["AllowedHosts", "is_guarded", "split_authority"]

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""Of the last label: what https://url.spec.whatwg.org/#ends-in-a-number-checker takes for an IPv4 address."""

# Of https://www.iana.org/assignments/iana-ipv4-special-registry, what is no other host, and metadata services of
# clouds. Private networks are not guarded: most of those who are told live there, and the list names them.
_GUARDED_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's WireServer, from every virtual machine
        "169.254.0.0/16",  # link-local; the metadata service of most clouds is 169.254.169.254
        "192.0.0.0/24",  # Oracle's metadata service is 192.0.0.192
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GUARDED_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/128",
        "::1/128",
        "2001::/32",  # Teredo carries an IPv4 address in its own way
        "fd00:ec2::/32",  # Amazon's metadata service is fd00:ec2::254
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
# Prefix -> by how many bits the IPv4 address in it is shifted.
_CARRIES_4 = {
    ipaddress.IPv6Network("::/96"): 0,
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,
    ipaddress.IPv6Network("::ffff:0:0:0/96"): 0,
    ipaddress.IPv6Network("64:ff9b::/96"): 0,
    ipaddress.IPv6Network("64:ff9b:1::/48"): 0,
    ipaddress.IPv6Network("2002::/16"): 80,
}


def is_guarded(text: str) -> bool:
    """Whether a numeric address is for those alone who spell it out.

    So it is with loopback, link-local, multicast and metadata services of clouds, and with what cannot be read.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _GUARDED_4)
    if address.scope_id is not None or any(address in network for network in _GUARDED_6):
        return True
    carried = [
        ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)
        for network, shift in _CARRIES_4.items()
        if address in network
    ]
    return any(one in network for one in carried for network in _GUARDED_4)


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
        return f"[{_address(matched[1], 6)}]", port
    host = matched[2].lower()
    labels = host.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        return _address(host, 4), port
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("that is no host name")
    return host, port


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
        if address.version != version:
            raise ValueError
    except ValueError:
        if version == 6:
            raise ValueError("that is no IPv6 address") from None
        raise ValueError("IPv4 addresses are written as four decimal numbers without leading zeros") from None
    return str(address)


class AllowedHosts:
    """The hosts that may be told.

    Args:
        entries: Each `host` or `host:port`, where `host` is a name, an address, or `*.example.com` for every name below
            example.com (and not itself). Without a port, that of the scheme is meant, and no other.

    Raises:
        SetupError: An entry is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._exact: set[tuple[str, int | None]] = set()
        self._below: set[tuple[str, int | None]] = set()
        for entry in entries:
            below = entry.startswith("*.")
            try:
                host, port = split_authority(entry[2:] if below else entry)
                if below and _is_address(host):
                    raise ValueError("an address has no names below it")
            except ValueError as error:
                raise SetupError(f"callbacks are allowed to {entry!r}: {error}") from None
            (self._below if below else self._exact).add((host, port))

    def __bool__(self) -> bool:
        return bool(self._exact or self._below)

    def allow(self, host: str, port: int, usual_port: int | None) -> bool:
        """Whether `host`, as `split_authority` spells it, may be told at `port`.

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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
