"""`server()`: a drop-in for `grpc.aio.server()`."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from mesh.wire.binding import BACKLOG, bind_tcp, bind_unix, unlink_socket
from mesh.wire.credentials import ServerCredentials
from mesh.wire.limits import WireLimits
from mesh.wire.options import ServerOptions
from mesh.wire.server_protocol import ServerProtocol
from mesh.wire.server_shared import Shared
from mesh.wire.upkeep import Upkeep

__all__ = ["WireServer", "server"]

SWEEP_S = 1.0
"""How often connections are looked at; see `Upkeep`."""
MAX_CONNECTIONS = 10_000


def server(
    migration_thread_pool: Any = None,
    handlers: Sequence[grpc.GenericRpcHandler] | None = None,
    interceptors: Sequence[Any] | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    maximum_concurrent_rpcs: int | None = None,
    compression: grpc.Compression | None = None,
    *,
    limits: WireLimits | None = None,
    max_connections: int = MAX_CONNECTIONS,
    clock: Callable[[], float] = time.monotonic,
) -> WireServer:
    """A server with the surface of `grpc.aio.server`, and what a server in the open needs beside it.

    Args:
        migration_thread_pool: Not supported.
        handlers: Generic handlers.
        interceptors: `grpc.aio.ServerInterceptor`s, the outermost first.
        options: grpcio's channel arguments; see `ServerOptions`.
        maximum_concurrent_rpcs: Calls of all connections that may run at once; those beyond end as RESOURCE_EXHAUSTED.
        compression: For responses, unless a handler says otherwise.
        limits: What one connection may ask of us; `options` that say the same come before it.
        max_connections: Connections that may be open at once; those beyond are closed at once.
        clock: Seconds that never go back, for looking after connections.

    Raises:
        ValueError: Something that is not supported: a thread pool for blocking handlers, or an unknown option.
    """
    if migration_thread_pool is not None:
        raise ValueError("migration_thread_pool is not supported: handlers run on the event loop and have to be async")
    parsed = ServerOptions.read(options)
    made = WireServer(
        Shared(
            parsed,
            parsed.bounded(limits or WireLimits()),
            compress=compression not in (None, grpc.Compression.NoCompression),
            max_calls=maximum_concurrent_rpcs,
            max_connections=max_connections,
            clock=clock,
        ),
        interceptors=tuple(interceptors or ()),
    )
    if handlers:
        made.add_generic_rpc_handlers(handlers)
    return made


class WireServer(grpc.aio.Server):
    """Listens at any number of addresses, and answers for the handlers it was given."""

    def __init__(self, shared: Shared, *, interceptors: tuple[Any, ...]) -> None:
        self._shared = shared
        shared.interceptors = interceptors
        self.upkeep = Upkeep(shared.connections, shared.options, shared.limits, shared.clock)
        """Looks after connections by itself once a second; a test may have it look at once."""
        self._sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._listening: list[asyncio.Server] = []
        self._unix_paths: list[str] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._stopping = False

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Handlers that decide by the call."""
        self._shared.routes.add_generic(tuple(generic_rpc_handlers))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Handlers by method name: what generated code calls beside the one above."""
        self._shared.routes.add_registered(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Bind an address, in the clear; returns the port. Raises RuntimeError where it cannot be bound."""
        return self._bind(address, None)

    def add_secure_port(self, address: str, server_credentials: Any) -> int:
        """Bind an address, under TLS.

        Raises:
            RuntimeError: It cannot be bound.
            TypeError: The credentials are grpcio's, which cannot be looked into; use `mesh.wire.ServerCredentials`.
        """
        if not isinstance(server_credentials, ServerCredentials):
            raise TypeError("grpcio's ServerCredentials cannot be looked into; use mesh.wire.ServerCredentials")
        return self._bind(address, server_credentials.context())

    def _bind(self, address: str, tls: ssl.SSLContext | None) -> int:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:").removeprefix("//")
            self._sockets.append((bind_unix(path, address), tls))
            self._unix_paths.append(path)
            return 1
        bound, port = bind_tcp(address, reuse_port=self._shared.options.reuse_port)
        self._sockets += [(one, tls) for one in bound]
        return port

    async def start(self) -> None:
        """Begin to accept. Call it once."""
        loop = asyncio.get_running_loop()
        self._stopped = loop.create_future()
        self._shared.idle = self._when_idle
        for bound, tls in self._sockets:
            listen = loop.create_unix_server if bound.family == socket.AF_UNIX else loop.create_server
            listening = await listen(
                lambda: ServerProtocol(self._shared, loop),
                sock=bound,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=self._shared.limits.hello_s if tls else None,
                ssl_shutdown_timeout=self._shared.limits.linger_s if tls else None,
            )
            self._listening.append(listening)
        self._sweep(loop)

    async def stop(self, grace: float | None) -> None:
        """Accept nothing new, finish what was accepted for at most `grace` seconds, then end it as UNAVAILABLE."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
        first = not self._stopping
        self._stopping = True
        if first:
            for listening in self._listening:
                listening.close()
            for path in self._unix_paths:
                unlink_socket(path)
            for connection in list(self._shared.connections):
                connection.drain()
        if grace and self._shared.connections:
            await asyncio.wait({self._stopped}, timeout=grace)
        for connection in list(self._shared.connections):
            connection.abort()
        if self._shared.connections:
            # Last words go out, for as long as a connection may linger; then there is none.
            await asyncio.wait({self._stopped})
        if self._sweeper is not None:
            self._sweeper.cancel()
        for bound, _ in self._sockets:
            bound.close()
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; True when it had not within `timeout`."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._stopped}, timeout=timeout)
        return not self._stopped.done()

    def _when_idle(self) -> None:
        if self._stopping and not self._shared.connections and self._stopped and not self._stopped.done():
            self._stopped.set_result(None)

    # Looking after connections: one timer for all of them.

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.upkeep.look()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
