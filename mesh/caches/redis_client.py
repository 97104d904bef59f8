"""redis-py (https://github.com/redis/redis-py), held to bounds of ours: few connections, one timeout, no retries.

What travels on a connection, who is let in and TLS are redis-py's. Ours is how long a call waits and for what, and that
a connection on which anything went wrong is not used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from mesh.caches.addresses import RedisAddress
from mesh.context import Clock

__all__ = ["Command", "RedisClient", "Reply", "ReplyError"]

Command: TypeAlias = tuple[bytes, ...]
ReplyError = ResponseError
"""A command was refused; its text is the server's."""
Reply: TypeAlias = "bytes | int | ReplyError | list[Reply] | None"
"""Simple and bulk strings are bytes."""

_CONNECTIONS = 4
_MAX_TEXT = 400
"""Of what a server says is wrong."""
_MAX_WAITING = 4096
"""Calls without an answer, those without a connection included."""
_MAX_WAITING_BYTES = 64 << 20
"""What they hold, before the last one's."""


class RedisClient:
    """A few connections to a server, opened when they are needed.

    Args:
        address: Where it is.
        clock: What timeouts are measured by.
        ca_pem: Certificates to trust beside the system's, for an address with TLS.
    """

    def __init__(self, address: RedisAddress, clock: Clock, ca_pem: str = "") -> None:
        self._clock = clock
        self._pool = _pool(address, ca_pem)
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        """Whoever has one finds a connection in the pool. (redis-py's own `BlockingConnectionPool` waits on an
        asyncio.Condition, whose wake-up is lost where the one it wakes is cancelled: seen with CPython 3.11.)"""
        self._running: set[asyncio.Task[list[Reply]]] = set()
        self._waiting_bytes = 0
        self._closed = False

    async def ask(
        self, commands: Sequence[Command], timeout_s: float, understands: Callable[[list[Reply]], bool] | None = None
    ) -> list[Reply]:
        """Send commands in one write.

        A caller that is cancelled before they are sent takes them back; afterwards their replies are read all the same,
        so that the connection can be used again.

        Args:
            commands: One or more.
            timeout_s: How long everything may take, connecting included.
            understands: Whether replies make sense.

        Returns:
            Their replies, one each.

        Raises:
            OSError: There are none, or none that make sense: ConnectionError, TimeoutError.
        """
        if self._closed:
            raise ConnectionError("it is closed")
        if len(self._running) >= _MAX_WAITING or self._waiting_bytes > _MAX_WAITING_BYTES:
            raise ConnectionError(f"{len(self._running)} calls wait for the server already")
        size = sum([len(part) for command in commands for part in command])
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A task of its own, the only one that is ever cancelled: handlers are stepped in that of whoever called them.
        task = asyncio.create_task(self._run(commands, understands, waiter))

        def expire() -> None:
            task.cancel()
            _wake(waiter)

        def end(_: object) -> None:
            timer.cancel()
            self._running.discard(task)
            self._waiting_bytes -= size
            if not task.cancelled():
                # Nobody looks where the caller went away.
                task.exception()
            _wake(waiter)

        timer = self._clock.call_at(self._clock.now() + timeout_s, expire)
        self._running.add(task)
        self._waiting_bytes += size
        task.add_done_callback(end)
        await waiter
        if self._closed:
            raise ConnectionError("it was closed")
        if not task.done() or task.cancelled():
            raise TimeoutError
        return task.result()

    async def _run(
        self,
        commands: Sequence[Command],
        understands: Callable[[list[Reply]], bool] | None,
        waiter: asyncio.Future[None],
    ) -> list[Reply]:
        async with self._slots:
            if waiter.cancelled():
                return []
            try:
                return await self._exchange(commands, understands)
            except Exception as error:
                # Mostly RedisError, and where the server talks rubbish, whatever its parser runs into.
                raise ConnectionError(str(error)[:_MAX_TEXT] or type(error).__name__) from None

    async def _exchange(
        self, commands: Sequence[Command], understands: Callable[[list[Reply]], bool] | None
    ) -> list[Reply]:
        connection = await self._pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            replies = [await _reply(connection) for _ in commands]
            if understands is not None and not understands(replies):
                raise ConnectionError(f"no answer to the question: {replies!r:.200}")
        except BaseException:
            # redis-py does so itself, cancelled or not, but for what it takes for an answer.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)
        return replies

    async def close(self) -> None:
        """Drop everything. Those who wait are told."""
        self._closed = True
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await self._pool.disconnect()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return cast("Reply", await connection.read_response())
    except ResponseError as error:
        return error


def _pool(address: RedisAddress, ca_pem: str) -> ConnectionPool:
    settings: dict[str, Any] = {
        "db": address.db,
        "username": (address.username or None) if address.password else None,
        "password": address.password or None,
        "decode_responses": False,
        # One timeout for all of a call is the caller's: no other here, and no retries that would go beyond it.
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # Nothing is sent on a new connection that need not be.
        "protocol": 2,
        "driver_info": None,
    }
    if address.path:
        kind: type[Any] = _UnixConnection
        settings["path"] = address.path
    else:
        kind = _TlsConnection if address.tls else _TcpConnection
        settings |= {"host": address.host, "port": address.port}
    if address.tls:
        settings |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_data": ca_pem or None}
    return ConnectionPool(connection_class=kind, max_connections=_CONNECTIONS, **settings)


class _Abrupt:
    """Connections that are dropped, not closed: closing waits until a server that is gone took all that was written."""

    __slots__ = ()
    _writer: asyncio.StreamWriter | None

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """See `redis.asyncio.Connection`."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **kwargs)  # type: ignore[misc]


class _TcpConnection(_Abrupt, Connection):
    pass


class _TlsConnection(_Abrupt, SSLConnection):
    pass


class _UnixConnection(_Abrupt, UnixDomainSocketConnection):
    pass
