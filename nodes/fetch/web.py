"""GET over HTTP from allowed hosts at public addresses. Needs aiohttp (`pip install inference-mesh[fetch]`)."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from mesh import InvalidInput, RequestError, Unavailable
from mesh.hosts import PORTS, AllowedHosts
from nodes.fetch.addresses import is_public
from nodes.fetch.connector import Connector
from nodes.fetch.intake import Intake
from nodes.fetch.references import WebReference

__all__ = ["Web"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429})
"""Of 4xx: those that RFC 9110 and its companions say may be asked again. Of 5xx, all."""
_IDLE_S = 15.0
"""Seconds for which an idle connection is kept: less than the usual servers do, so that it is they who wait."""
_DNS_TTL_S = 10
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "inference-mesh"}


class _AddressRefused(OSError):
    """No connection is made to such an address."""


class Web:
    """A client without cookies, credentials, proxies or decompression, which keeps connections for the next row.

    Made and used on one event loop, and closed there.

    Args:
        hosts: Who may be asked, and be redirected to.
        allow_private: Connect to any address, not only to those of the public internet.
        max_redirects: Redirects followed from one reference.
        connections: Connections at once.
    """

    def __init__(self, hosts: AllowedHosts, *, allow_private: bool, max_redirects: int, connections: int) -> None:
        self._hosts = hosts
        self._allow_private = allow_private
        self._max_redirects = max_redirects
        trusted = ssl.create_default_context()
        trusted.set_alpn_protocols(["http/1.1"])
        connector = Connector(
            # The address is checked where its socket is made: no name can be resolved anew in between, and no
            # spelling of an address goes round it.
            socket_factory=self._socket,
            resolver=aiohttp.ThreadedResolver(),
            ssl=trusted,
            limit=connections,
            keepalive_timeout=_IDLE_S,
            ttl_dns_cache=_DNS_TTL_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # whoever asks bounds the whole fetch
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    def allows(self, reference: WebReference) -> bool:
        """Whether its host may be asked."""
        return self._hosts.allow(reference.host, reference.port, PORTS[reference.scheme])

    async def get(self, reference: WebReference, intake: Intake) -> bytes:
        """The body of the answer to a GET, through allowed redirects.

        Raises:
            InvalidInput: Not allowed, not there, too large, or no proper HTTP.
            Unavailable: The server cannot be reached, breaks off, or says that it may succeed later.
        """
        for _ in range(self._max_redirects + 1):
            try:
                found = await self._ask(reference, intake)
            except (aiohttp.ClientError, ConnectionError) as error:
                raise _told(error) from error
            if isinstance(found, bytes):
                return found
            if not self.allows(found):
                raise InvalidInput("it redirects to a host that is not allowed")
            reference = found
        raise InvalidInput(f"more than the {self._max_redirects} redirects that are followed")

    async def _ask(self, reference: WebReference, intake: Intake) -> bytes | WebReference:
        """The body, or where it is said to be."""
        # `encoded`: sent as it is, since signed URLs do not survive a second opinion on their escapes.
        async with self._session.get(URL(reference.url, encoded=True), allow_redirects=False) as response:
            if response.status in _REDIRECTS:
                return reference.redirected(response.headers.get("Location", ""))
            if response.status != 200:
                raise _refusal(response.status, response.headers.get("Retry-After", ""))
            size = _body_size(response.headers)
            if size is not None:
                intake.announced(size)
            async for chunk in response.content.iter_any():
                intake.add(chunk)
            return intake.body()

    def _socket(self, address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, where = address
        if not self._allow_private and not is_public(str(where[0])):
            raise _AddressRefused("the address is not public")
        return socket.socket(family, kind, protocol)


def _refusal(status: int, retry_after: str) -> RequestError:
    if status >= 500 or status in _PASSING:
        # A date is not taken: it would be held against a clock that nobody has set.
        after_s = float(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else 0.0
        return Unavailable(f"the server answered {status}", retry_after_s=after_s)
    return InvalidInput(f"the server answered {status}")


def _body_size(headers: CIMultiDictProxy[str]) -> int | None:
    """What the headers say of the body; None where they leave its size open.

    Raises:
        InvalidInput: They contradict each other, or the body is encoded though that was not asked for: to decode it
            would be to let a few bytes become many.
    """
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise InvalidInput("the server sends an encoded body where it was asked for none")
    sizes = headers.getall("Content-Length", [])
    # aiohttp has two parsers; the one in C refuses this by itself, the one in Python lets repeated sizes through.
    if len(sizes) > 1 or (sizes and "Transfer-Encoding" in headers):
        raise InvalidInput("the server states the size of the body twice")
    return int(sizes[0]) if sizes else None


def _told(error: Exception) -> RequestError:
    """In words that name no host: a redirect may have led to one that the caller did not send."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return InvalidInput("the certificate of the server is not trusted")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        if error.os_error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return InvalidInput("there is no host of that name")
        return Unavailable("the name of the host cannot be resolved now")
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, _AddressRefused):
            return InvalidInput("the host is at an address that is not public")
        return Unavailable("the server cannot be reached")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Unavailable("the body breaks off, or is not of the size that was stated")
    if isinstance(error, aiohttp.ClientConnectionError | ConnectionError):
        return Unavailable("the server closed the connection")
    return InvalidInput("the server does not answer in proper HTTP")
