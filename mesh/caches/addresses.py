"""Addresses of backends, as a topology file writes them: what they may be, and what is wrong with others. No I/O.

| address | backend |
|---|---|
| `memory://` | this process |
| `redis://[user:password@]host[:port][/db]` | Redis or Valkey over TCP, port 6379 unless it says |
| `rediss://…` | the same over TLS, against the system's certificates |
| `redis+unix:/path[?db=N]` | the same over a unix socket; `redis+unix://user:password@/path` with a password |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from mesh.errors import SetupError

__all__ = ["SCHEMES", "RedisAddress", "parse_redis", "scheme_of"]

SCHEMES = ("memory", "redis", "rediss", "redis+unix")
"""Schemes of the backends that are built in."""
_PORT = 6379
_MAX_DB = 65_535
_MAX_SOCKET_PATH_BYTES = 100
_FORM = "redis://host:port/db, rediss://host:port/db or redis+unix:/path?db=N"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where a Redis or Valkey server is. Either `host` and `port`, or `path`."""

    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The address without its password."""
        user = f"{self.username}@" if self.username else ""
        if self.path:
            return f"redis+unix:{f'//{user}' if user else ''}{self.path}{f'?db={self.db}' if self.db else ''}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{user}{host}:{self.port}{f'/{self.db}' if self.db else ''}"


def scheme_of(url: object) -> str:
    """The scheme of a backend's address.

    Raises:
        SetupError: It is no address.
    """
    scheme, colon, rest = url.partition(":") if isinstance(url, str) else ("", "", "")
    if not colon or not scheme or not scheme.replace("+", "").isalnum():
        raise SetupError(f"{url!r:.200} is no address of a cache: write memory://, {_FORM}")
    if scheme == "memory" and rest not in ("", "//"):
        raise SetupError(f"{url!r:.200} names a place, but a memory cache has none: write memory://")
    return scheme


def parse_redis(url: str) -> RedisAddress:
    """Read the address of a Redis or Valkey server.

    Raises:
        SetupError: It is none. The text does not repeat a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SetupError(f"a cache's address cannot be read ({error}): write {_FORM}") from None
    if parts.fragment or any(character.isspace() or ord(character) < 32 for character in url):
        raise SetupError(f"a cache's address has a # or a space in it: write {_FORM}")
    if parts.scheme == "redis+unix":
        return _unix(parts)
    if parts.query:
        raise SetupError(f"a cache's address says {parts.query!r} after its ?, which nothing here knows: write {_FORM}")
    host = parts.hostname or ""
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not host or port == 0:
        raise SetupError(f"a cache's address names no {'port' if host else 'host'}: write {_FORM}")
    db = _db(parts.path[1:]) if parts.path not in ("", "/") else 0
    return RedisAddress(host=host, port=port or _PORT, db=db, tls=parts.scheme == "rediss", **_user(parts))


class _User(TypedDict):
    username: str
    password: str


def _user(parts: SplitResult) -> _User:
    return _User(username=unquote(parts.username or ""), password=unquote(parts.password or ""))


def _unix(parts: SplitResult) -> RedisAddress:
    path = unquote(parts.path)
    if parts.hostname or not path.startswith("/") or len(path) < 2:
        raise SetupError(f"a cache's address has no absolute path of a socket: write {_FORM}")
    if len(path.encode()) > _MAX_SOCKET_PATH_BYTES or "\0" in path:
        raise SetupError(f"the path of a unix socket has at most {_MAX_SOCKET_PATH_BYTES} bytes: {path!r:.200}")
    asked = parse_qs(parts.query, keep_blank_values=True)
    if set(asked) - {"db"} or len(asked.get("db", ())) > 1:
        raise SetupError(f"a cache's address says {parts.query!r} after its ?, where only db=N is known")
    return RedisAddress(path=path, db=_db(asked["db"][0]) if asked else 0, **_user(parts))


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _MAX_DB):
        raise SetupError(f"{text!r:.100} is no number of a database, from 0 to {_MAX_DB}")
    return int(text)
