"""`server()`: a drop-in for `grpc.aio.server()`."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc

from mesh.wire.credentials import ServerCredentials
from mesh.wire.limits import WireLimits
from mesh.wire.options import ServerOptions
from mesh.wire.server_protocol import ServerProtocol, Shared

__all__ = ["WireServer", "server"]

BACKLOG = 512
SWEEP_S = 1.0
"""How often connections are looked at: for age, idleness, keepalive, and those that never say anything."""
HELLO_S = 20.0
"""How long a connection may take to say anything at all."""


def server(
    migration_thread_pool: Any = None,
    handlers: Sequence[grpc.GenericRpcHandler] | None = None,
    interceptors: Sequence[Any] | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    maximum_concurrent_rpcs: int | None = None,
    compression: grpc.Compression | None = None,
) -> WireServer:
    """A server with the surface of `grpc.aio.server`.

    Raises:
        ValueError: Something that is not supported: a thread pool for blocking handlers, or an unknown option.
    """
    if migration_thread_pool is not None:
        raise ValueError("migration_thread_pool is not supported: handlers run on the event loop and have to be async")
    made = WireServer(
        ServerOptions.read(options),
        max_calls=maximum_concurrent_rpcs,
        interceptors=tuple(interceptors or ()),
        compress=compression not in (None, grpc.Compression.NoCompression),
    )
    if handlers:
        made.add_generic_rpc_handlers(handlers)
    return made


class WireServer(grpc.aio.Server):
    """Listens at any number of addresses, and answers for the handlers it was given."""

    def __init__(
        self, options: ServerOptions, *, max_calls: int | None, interceptors: tuple[Any, ...], compress: bool
    ) -> None:
        limits = WireLimits(
            max_concurrent_streams=options.max_concurrent_streams,
            max_header_list_bytes=options.max_metadata_bytes,
        )
        self._options = options
        self._shared = Shared(options, limits, compress=compress, max_calls=max_calls)
        self._shared.interceptors = interceptors
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
            self._sockets.append((_bind_unix(path, address), tls))
            self._unix_paths.append(path)
            return 1
        bound, port = _bind_tcp(address, reuse_port=self._options.reuse_port)
        self._sockets += [(one, tls) for one in bound]
        return port

    async def start(self) -> None:
        """Begin to accept. Call it once."""
        loop = asyncio.get_running_loop()
        self._stopped = loop.create_future()
        self._shared.idle = self._when_idle
        for bound, tls in self._sockets:
            factory = lambda: ServerProtocol(self._shared, loop)  # noqa: E731
            if bound.family == socket.AF_UNIX:
                listening = await loop.create_unix_server(factory, sock=bound, ssl=tls, backlog=BACKLOG)
            else:
                listening = await loop.create_server(factory, sock=bound, ssl=tls, backlog=BACKLOG)
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
                _unlink_socket(path)
            for connection in list(self._shared.connections):
                connection.drain()
        if grace and self._shared.connections:
            await asyncio.wait({self._stopped}, timeout=grace)
        for connection in list(self._shared.connections):
            connection.abort()
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
        now = loop.time()
        for connection in list(self._shared.connections):
            self._look_at(connection, now)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)

    def _look_at(self, connection: ServerProtocol, now: float) -> None:
        options = self._options
        age_s, silent_s = now - connection.opened_at, now - connection.heard_at
        unanswered_s = 0.0 if connection.pinged_at is None else now - connection.pinged_at
        mute = not connection.connection.settled and age_s > HELLO_S
        if mute or unanswered_s > options.keepalive_timeout_s:
            connection.abort()
        elif options.max_age_s is not None and age_s > options.max_age_s * random.uniform(0.9, 1.1):
            if not connection.draining:
                connection.drain()
            elif options.max_age_grace_s is not None and age_s > options.max_age_s * 1.1 + options.max_age_grace_s:
                connection.abort()
        elif options.max_idle_s is not None and not connection.calls and silent_s > options.max_idle_s:
            connection.drain()
        elif options.keepalive_s is not None and silent_s > options.keepalive_s and connection.pinged_at is None:
            connection.pinged_at = now
            connection.connection.ping(b"keepaliv")
            connection.flush_soon()


def _bind_tcp(address: str, *, reuse_port: bool) -> tuple[list[socket.socket], int]:
    host, _, port_text = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port_text.isdigit():
        raise RuntimeError(f"{address!r} is no address to bind: write host:port or unix:/path")
    try:
        found = socket.getaddrinfo(
            None if host in ("", "*") else host, int(port_text), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise RuntimeError(f"{address} cannot be bound: {error}") from None
    bound: list[socket.socket] = []
    port = int(port_text)
    for family, kind, protocol, _, place in dict.fromkeys(found):
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((place[0], port, *place[2:]))
            # Listening begins here: until then the system would give the address to a second one as well.
            made.listen(BACKLOG)
            made.setblocking(False)
        except OSError as error:
            made.close()
            for other in bound:
                other.close()
            raise RuntimeError(f"{address} cannot be bound: {os.strerror(error.errno or 0)}") from None
        bound.append(made)
        port = made.getsockname()[1]
    return bound, port


def _bind_unix(path: str, address: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise RuntimeError(f"{address} cannot be bound: it is in use")
        _unlink_socket(path)  # left behind by one that was killed
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


def _unlink_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
