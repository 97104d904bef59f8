"""Connections that are used again only where nothing has come that nobody asked for."""

from __future__ import annotations

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

__all__ = ["Connector"]


class Connector(aiohttp.TCPConnector):
    """A pool that throws an idle connection away on which something has arrived.

    aiohttp 3.14 would read it as the answer to the next request, so that a body longer than its Content-Length could
    answer for another reference. What arrives only after the next request was sent cannot be told from its answer.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A connection on which no answer waits."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            # Never so of a new one; so this ends, at the latest when the pool is empty.
            if protocol is None or not protocol.should_close:
                return connection
            connection.close()
