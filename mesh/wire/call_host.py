"""`CallHost`: what a server's call needs of its connection."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from mesh.wire.connection import Connection
from mesh.wire.options import ServerOptions

__all__ = ["CallHost"]


class CallHost(Protocol):
    """What a call needs of the connection that it came over."""

    connection: Connection
    options: ServerOptions
    loop: asyncio.AbstractEventLoop
    compress: bool
    """Whether responses are compressed unless a handler says otherwise."""
    paused: bool
    """Whether the operating system takes no more of what is written."""
    held_bytes: int
    """Bytes of requests that are held, of all calls of the connection."""
    peer: str
    auth_context: dict[str, list[bytes]]

    def flush(self) -> None:
        """Write now."""
        ...

    def flush_soon(self) -> None:
        """Write before the loop waits again."""
        ...

    def forget(self, stream_id: int, /) -> None:
        """A call is over."""
        ...

    def still_runs(self, task: asyncio.Future[Any], /) -> None:
        """A call is over and its handler was told, but may not have heard."""
        ...
