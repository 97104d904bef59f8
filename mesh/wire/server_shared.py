"""`Shared`: what the connections of one server have in common."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from mesh.wire.connection import Connection
from mesh.wire.limits import WireLimits
from mesh.wire.options import ServerOptions
from mesh.wire.routes import Route, Routes

__all__ = ["Shared", "told_address"]

log = logging.getLogger("mesh.wire")


class Shared:
    """What the connections of one server have in common."""

    def __init__(
        self,
        options: ServerOptions,
        limits: WireLimits,
        *,
        compress: bool = False,
        max_calls: int | None = None,
        max_connections: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.limits = limits
        self.max_connections = max_connections
        self.clock = clock
        self.compress = compress
        self.max_calls = max_calls
        self.routes = Routes(intercepted=False)
        self.interceptors: tuple[Any, ...] = ()
        self.calls = 0
        self._told_crowded = False
        self.connections: set[Any] = set()
        """Each a `ServerProtocol`."""
        self.idle: Callable[[], None] = lambda: None
        """Called whenever the last call of the server, or the last connection, is gone."""

    def is_crowded(self) -> bool:
        """Whether there is one connection too many. Logs it once until there is room again, not for each of a flood."""
        if len(self.connections) < self.max_connections:
            self._told_crowded = False
        if len(self.connections) <= self.max_connections:
            return False
        if not self._told_crowded:
            self._told_crowded = True
            log.warning("%d connections are open: more are turned away", self.max_connections)
        return True

    def hold(self, connection: Connection, task: asyncio.Future[Any]) -> None:
        """Count a call as open until its task is done, though it is over for the client."""
        if task.done():
            return

        def release(_: Any) -> None:
            connection.release()
            self.calls -= 1

        connection.hold()
        self.calls += 1
        task.add_done_callback(release)

    async def find(self, route: Route) -> Any:
        """The handler that the interceptors let through."""

        async def ask(index: int, details: Any) -> Any:
            if index == len(self.interceptors):
                return self.routes.find(details)

            async def onwards(changed: Any) -> Any:
                return await ask(index + 1, changed)

            return await self.interceptors[index].intercept_service(onwards, details)

        return await ask(0, route.details)


def told_address(peer: Any, local: Any) -> str:
    """An address as grpcio tells it: `ipv4:127.0.0.1:5000`, `ipv6:[::1]:5000`, `unix:`."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host, port = str(peer[0]).removeprefix("::ffff:"), int(peer[1])
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return f"unix:{local}" if isinstance(local, str) else "unix:"
