"""Sockets that a server listens at."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

__all__ = ["BACKLOG", "bind_tcp", "bind_unix", "unlink_socket"]

BACKLOG = 512
"""Connections that wait to be accepted; the system refuses those beyond."""


def bind_tcp(address: str, *, reuse_port: bool) -> tuple[list[socket.socket], int]:
    """Bind `host:port` and listen; the sockets and the port. `[::]` takes IPv4 as well, as with grpcio.

    Raises:
        RuntimeError: It cannot be bound; says why.
    """
    host, _, port_text = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port_text.isdigit() or int(port_text) > 65_535:
        raise RuntimeError(f"{address!r} is no address to bind: write host:port or unix:/path")
    port = int(port_text)
    bound: list[socket.socket] = []
    try:
        wanted = None if host in ("", "*") else host
        found = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, place in dict.fromkeys(found):
            bound.append(_bound(family, (place[0], port, *place[2:]), reuse_port=reuse_port, both=host == "::"))
            port = bound[-1].getsockname()[1]
    except OSError as error:
        for other in bound:
            other.close()
        if host == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return bind_tcp(f"0.0.0.0:{port}", reuse_port=reuse_port)
        raise RuntimeError(f"{address} cannot be bound: {error.strerror or error}") from None
    return bound, port


def _bound(family: int, place: Any, *, reuse_port: bool, both: bool) -> socket.socket:
    # By its protocol as well: asyncio sets TCP_NODELAY only on such. Without it, what follows a first answer within a
    # stream waits for its acknowledgement, which the far side delays by 40 ms.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        made.bind(place)
        # Listening begins here: until then the system would give the address to a second one as well.
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def bind_unix(path: str, address: str) -> socket.socket:
    """Bind a path and listen. A socket that a killed server left behind is replaced; one that is in use is not, nor a
    file of any other kind.

    Raises:
        RuntimeError: It cannot be bound; says why.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise RuntimeError(f"{address} cannot be bound: it is in use")
        unlink_socket(path)  # left behind by one that was killed
        made.bind(path)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise RuntimeError(f"{address} cannot be bound: {os.strerror(error.errno or 0)}") from None
    except RuntimeError:
        made.close()
        raise
    return made


def unlink_socket(path: str) -> None:
    """Remove a socket from the file system, if one is there."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
