"""Callbacks over HTTP. Needs aiohttp (`pip install 'inference-mesh[fetch]'`)."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

import aiohttp
from yarl import URL

from mesh.errors import InvalidInput, RequestError, Unavailable
from mesh.jobs.callbacks.event import Post
from mesh.jobs.callbacks.targets import Target

__all__ = ["HttpTeller"]

MOST_READ = 16 << 10
"""Bytes of an answer that are read, and thrown away. What is said beside the status matters to nobody."""
_GONE = 410


class _AddressRefused(OSError):
    """No connection is made to such an address."""


class HttpTeller:
    """A client without cookies, credentials, proxies, redirects or connections that are kept."""

    def __init__(self) -> None:
        self._trusted = ssl.create_default_context()

    async def tell(self, target: Target, post: Post) -> None:
        """Send it, and wait until it was heard: any status from 200 to 299. Whoever calls bounds the time.

        Raises:
            InvalidInput: It never will be: the server says 410 Gone, or is at an address that callbacks do not go to.
            Unavailable: It may be the next time.
        """
        try:
            status, after_s = await self._send(target, post)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _told(target, error) from error
        if 200 <= status <= 299:
            return
        if status == _GONE:
            raise InvalidInput(f"{target} answered 410 Gone")
        raise Unavailable(f"{target} answered {status}", retry_after_s=after_s)

    async def _send(self, target: Target, post: Post) -> tuple[int, float]:
        def made(address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
            # The address is checked where its socket is made: no name can be resolved anew in between.
            family, kind, protocol, _, where = address
            if not target.reaches(str(where[0])):
                raise _AddressRefused
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            socket_factory=made, resolver=aiohttp.ThreadedResolver(), ssl=self._trusted, force_close=True
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            # `encoded`: sent as it is, since a second opinion on its escapes may break a signed URL.
            url = URL(target.url, encoded=True)
            sending = session.post(url, data=post.body, headers=post.headers, allow_redirects=False)
            async with sending as response:
                await response.content.read(MOST_READ)
                after = response.headers.get("Retry-After", "")
                # A date is not taken: it would be held against a clock that nobody has set.
                return response.status, float(after) if re.fullmatch(r"[0-9]{1,6}", after) else 0.0


def _told(target: Target, error: Exception) -> RequestError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Unavailable(f"the certificate of {target} is not trusted")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable(f"{target} has a name that cannot be resolved now")
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _AddressRefused):
        return InvalidInput(f"{target} is at an address that callbacks do not go to unless the list spells it out")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unavailable(f"{target} cannot be reached")
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | ConnectionError):
        return Unavailable(f"{target} closed the connection")
    return Unavailable(f"{target} does not answer in proper HTTP")
