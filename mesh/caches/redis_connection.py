"""One connection to a Redis or Valkey server, shared by everybody.

Commands are written as they come, and replies come in their order. So a caller that gives up leaves nothing behind but
a reply that nobody reads.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import cast

from mesh.caches.addresses import RedisAddress
from mesh.caches.resp import Reply, ReplyError, ReplyReader, RespError, encode_command

__all__ = ["RedisConnection", "open_connection"]

_MAX_WAITING = 4096
"""Calls without an answer."""
_MAX_UNSENT_BYTES = 64 << 20
"""Bytes that wait to be written, before the last call's."""

Replies = asyncio.Future[list[Reply]]


class RedisConnection(asyncio.Protocol):
    """A connection.

    Args:
        max_bulk_bytes: The longest value that is taken.
    """

    def __init__(self, max_bulk_bytes: int) -> None:
        self._reader = ReplyReader(max_bulk_bytes)
        self._waiting: deque[tuple[int, Replies]] = deque()
        """Calls without an answer, the oldest first: how many replies they get, and who waits."""
        self._came: list[Reply] = []
        """Replies to the oldest."""
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, commands: bytes, count: int) -> Replies:
        """Send commands.

        Args:
            commands: One or more, encoded.
            count: How many.

        Returns:
            Their replies, as many. A caller that waits no longer cancels it.

        Raises:
            ConnectionError: It is closed, or too much waits already.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionError("the connection is closed")
        if len(self._waiting) >= _MAX_WAITING or transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            raise ConnectionError(f"{len(self._waiting)} calls wait for the server already")
        answer: Replies = asyncio.get_running_loop().create_future()
        self._waiting.append((count, answer))
        transport.write(commands)
        return answer

    def abort(self) -> None:
        """Drop it. Those who wait are told."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until nothing of it is left on the event loop."""
        await self._closed

    # ===== asyncio.Protocol =====

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is up."""
        # By its protocol: uvloop's transports are no asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Replies came, in any pieces."""
        try:
            replies = self._reader.feed(data)
        except RespError as error:
            self._fail(error)
            self.abort()
            return
        for reply in replies:
            if not self._waiting:
                self._fail(RespError("a reply that nobody asked for"))
                self.abort()
                return
            count, answer = self._waiting[0]
            self._came.append(reply)
            if len(self._came) == count:
                self._waiting.popleft()
                came, self._came = self._came, []
                if not answer.done():
                    answer.set_result(came)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._fail(ConnectionError(f"the connection was lost: {exc or 'closed by the server'}"))
        self._closed.set_result(None)

    def _fail(self, error: ConnectionError) -> None:
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)
                # Whoever waited may have given up in this very turn: then nobody looks.
                answer.exception()


async def open_connection(address: RedisAddress, max_bulk_bytes: int, tls: ssl.SSLContext | None) -> RedisConnection:
    """Connect, and say who we are where the address does.

    Raises:
        OSError: Nobody listens, or does not let us in.
    """
    loop = asyncio.get_running_loop()

    def made() -> RedisConnection:
        return RedisConnection(max_bulk_bytes)

    if address.path:
        _, connection = await loop.create_unix_connection(made, address.path)
    else:
        _, connection = await loop.create_connection(made, address.host, address.port, ssl=tls)
    try:
        await _introduce(connection, address)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _introduce(connection: RedisConnection, address: RedisAddress) -> None:
    commands: list[bytes] = []
    if address.password:
        who = (address.username.encode(),) if address.username else ()
        commands.append(encode_command(b"AUTH", *who, address.password.encode()))
    if address.db:
        commands.append(encode_command(b"SELECT", b"%d" % address.db))
    if not commands:
        return
    for reply in await connection.ask(b"".join(commands), len(commands)):
        if isinstance(reply, ReplyError):
            raise ConnectionRefusedError(reply.text)
