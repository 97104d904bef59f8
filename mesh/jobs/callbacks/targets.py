"""Who is to be told of a job's end: read, and held against what the topology allows. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from mesh.errors import InvalidInput
from mesh.hosts import PORTS, AllowedHosts, split_authority
from mesh.jobs.callbacks.hosts import is_guarded
from mesh.jobs.records import Callback
from mesh.jobs.work.backoff import Backoff

__all__ = ["CallbackSettings", "Target", "check_callback"]

MOST_CHARACTERS = 2048
"""Of a target: what the usual servers and proxies take as a request line, with room to spare."""
_URL = re.compile(r"(?i:(https?))://([^/?#]*)([^?#]*)((?:\?[^#]*)?)")
"""Scheme, authority, path, query; split as RFC 3986, B, does it. A fragment is not for servers."""
_LISTENER = re.compile(r"(?i:grpc)://([^/?#]*)/?")
_PRINTABLE = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSettings:
    """Who may be told, and how hard it is tried."""

    hosts: AllowedHosts
    """Nobody, where it is empty."""
    keys: tuple[bytes, ...] = ()
    """What signs; nothing is signed where there is none. See `mesh.jobs.callbacks.signing`."""
    attempts: int = 8
    """Attempts at one callback, the first included."""
    timeout_s: float = 5.0
    """How long one attempt may take."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=5.0, most_s=3600.0, factor=4.0))
    """The waits between them, which add up to two and a half hours at the most where there are eight attempts, and to
    half of that in the mean: an outage of whoever is told may last so long."""


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who may be told."""

    scheme: str
    """`http`, `https` or `grpc`."""
    host: str
    """In small letters; IPv6 in brackets."""
    port: int
    path: str = ""
    """Path and query, as written; empty for gRPC."""

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As it is asked for."""
        port = "" if self.port == PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"

    def __str__(self) -> str:
        # A path or query may hold a key.
        return f"{self.scheme}://{self.authority}"

    def reaches(self, address: str) -> bool:
        """Whether a numeric address may be connected to for it: a guarded one only where the target is that address, or
        is `localhost` and the address is loopback. It is on the list of what is allowed by then, so the list names it.
        """
        try:
            numeric = ipaddress.ip_address(address)
        except ValueError:
            return False
        if not is_guarded(address):
            return True
        if self.host == "localhost":
            return numeric.is_loopback
        try:
            return ipaddress.ip_address(self.host.strip("[]")) == numeric
        except ValueError:
            return False  # a name


def check_callback(callback: Callback, settings: CallbackSettings) -> Target:
    """Read who is to be told, where that is allowed.

    Raises:
        InvalidInput: It is neither an http or https URL nor grpc://host:port, or the topology does not allow it.
    """
    if bool(callback.url) == bool(callback.listener):
        raise InvalidInput("a callback has either a url or a listener")
    text = callback.url or callback.listener
    if len(text) > MOST_CHARACTERS or not _PRINTABLE.fullmatch(text):
        raise InvalidInput(f"a callback's target is plain ASCII of at most {MOST_CHARACTERS} characters")
    try:
        target = _url(text) if callback.url else _listener(text)
    except ValueError as error:
        raise InvalidInput(f"the callback's target cannot be read: {error}") from None
    if not settings.hosts.allow(target.host, target.port, PORTS.get(target.scheme)):
        text = f"callbacks to {target.authority} are not allowed"
        raise InvalidInput(f"{text}: the topology's jobs.callbacks.allow has to name it")
    return target


def _url(text: str) -> Target:
    matched = _URL.fullmatch(text)
    if matched is None:
        raise ValueError("it is no http: or https: URL without a fragment")
    if "@" in matched[2]:
        raise ValueError("it holds a name or password, which belongs into no URL")
    scheme = matched[1].lower()
    host, port = split_authority(matched[2])
    return Target(scheme, host, port or PORTS[scheme], (matched[3] or "/") + matched[4])


def _listener(text: str) -> Target:
    matched = _LISTENER.fullmatch(text)
    if matched is None:
        raise ValueError("a listener is written grpc://host:port")
    host, port = split_authority(matched[1])
    if port is None:
        raise ValueError("a listener is written grpc://host:port, with a port")
    return Target("grpc", host, port)
