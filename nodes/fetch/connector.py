"""Connections that are used again only where nothing has come that nobody asked for."""

from __future__ import annotations

import select
import weakref

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

__all__ = ["Connector"]


class Connector(aiohttp.TCPConnector):
    """A pool of connections that throws away an idle one on which bytes have arrived.

    aiohttp would read them as the answer to the next request, so that a body longer than its Content-Length could
    answer for another reference. curl looks at idle connections in the same way before it takes one
    (`Curl_conn_is_alive`). What arrives only after the next request was sent cannot be told from its answer.
    """

    _used: weakref.WeakSet[ResponseHandler] | None = None
    """Those that have carried a request: of a new one it says nothing that TLS has more to tell."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A connection on which nothing waits to be read."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if not self._is_spoilt(connection.protocol):
                return connection
            connection.close()

    def _is_spoilt(self, protocol: ResponseHandler | None) -> bool:
        if protocol is None or protocol.transport is None:
            return False
        if self._used is None:
            self._used = weakref.WeakSet()
        if protocol not in self._used:
            self._used.add(protocol)
            return False
        return protocol.should_close or _has_bytes(protocol.transport.get_extra_info("socket").fileno())


def _has_bytes(socket: int) -> bool:
    """Whether the system holds something of a socket to be read; also its end."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
