"""`Subchannel`: one connection at a time to one server, made again whenever it is gone and needed.

    IDLE => CONNECTING => READY => IDLE ...
            CONNECTING => TRANSIENT_FAILURE (tried again and again, with back-off) => READY ...

Back-off is that of https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from grpc import ChannelConnectivity

from mesh.wire.client_call import ClientCall
from mesh.wire.client_options import ChannelOptions
from mesh.wire.client_protocol import SILENT, ClientProtocol
from mesh.wire.credentials import ALPN
from mesh.wire.limits import WireLimits
from mesh.wire.resolving import Address

__all__ = ["Backoff", "Subchannel", "SubchannelHost"]

log = logging.getLogger("mesh.wire")

MULTIPLIER: Final = 1.6
JITTER: Final = 0.2
STAGGER_S: Final = 0.25
"""How long an address is tried alone before the next one is tried beside it (RFC 8305)."""
MOST_KEEPALIVE_S: Final = 7200.0
"""A server that is asked too often doubles the pause between pings, up to this (gRFC A8)."""


class Backoff:
    """How long to wait from the beginning of one attempt to the next."""

    __slots__ = ("_initial_s", "_most_s", "_next_s")

    def __init__(self, initial_s: float, most_s: float) -> None:
        self._initial_s = initial_s
        self._most_s = max(most_s, initial_s)
        self._next_s = initial_s

    def next_s(self) -> float:
        """Seconds; each time more."""
        delay_s = self._next_s * random.uniform(1 - JITTER, 1 + JITTER)
        self._next_s = min(self._next_s * MULTIPLIER, self._most_s)
        return delay_s

    def reset(self) -> None:
        """The server was there."""
        self._next_s = self._initial_s


class SubchannelHost(Protocol):
    """What connections need of their channel."""

    loop: asyncio.AbstractEventLoop
    limits: WireLimits
    line: dict[ClientCall, None]
    options: ChannelOptions
    tls: ssl.SSLContext | None
    tls_name: str

    def on_room(self) -> None:
        """Calls that wait may go on."""
        ...

    def on_change(self, subchannel: Subchannel, /) -> None:
        """A connection came or went, or could not be made."""
        ...

    def tell(self) -> None:
        """The state may be another: tell whoever waits for that."""
        ...


class Subchannel:
    """One server, at one address or the first that answers of several.

    Args:
        host: The channel's part that is told of every change.
        find: Gives the addresses, anew for each attempt.
    """

    def __init__(self, host: SubchannelHost, find: Callable[[], Awaitable[Sequence[Address]]]) -> None:
        self._host = host
        self._find = find
        self.loop = host.loop
        self.limits: WireLimits = host.limits
        self.line = host.line
        self._options: ChannelOptions = host.options
        self.state = ChannelConnectivity.IDLE
        self.error = ""
        """Why the last attempt failed."""
        self.protocol: ClientProtocol | None = None
        self._leaving: set[ClientProtocol] = set()
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(self._options.initial_backoff_s, self._options.max_backoff_s)
        self._not_before = 0.0
        self._delay_s = 0.0
        self._attempted_at = 0.0
        self._keepalive_s = self._options.keepalive_s
        self._keeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def protocols(self) -> list[ClientProtocol]:
        """All connections that have calls or may get some."""
        return [*self._leaving, *((self.protocol,) if self.protocol is not None else ())]

    def connect(self) -> None:
        """Make a connection, where there is none and none is being made."""
        if self.state is ChannelConnectivity.IDLE and self._task is None and not self._closed:
            self._move(ChannelConnectivity.CONNECTING)
            self._task = self.loop.create_task(self._connect())

    def disconnect(self) -> None:
        """Give the connection up; its calls go on. It is made again when needed."""
        if self.protocol is not None:
            self.protocol.leave()

    def close(self) -> list[asyncio.Future[None]]:
        """Give everything up for good; calls that are under way end as UNAVAILABLE. What is returned is done when
        nothing is left.
        """
        self._closed = True
        left: list[asyncio.Future[None]] = []
        if self._task is not None:
            self._task.cancel()
            left.append(self._task)
            self._task = None
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        for protocol in self.protocols:
            protocol.hang_up("the channel was closed")
            left.append(protocol.closed)
        self.state = ChannelConnectivity.SHUTDOWN
        return left

    # What a connection tells.

    def on_room(self) -> None:
        """Calls that wait may go on."""
        self._host.on_room()

    def on_gone(self, protocol: ClientProtocol) -> None:
        """A connection takes no more calls."""
        if protocol is not self.protocol:
            return
        self.protocol = None
        self._leaving.add(protocol)
        self.error = protocol.error
        if protocol.calmed and self._keepalive_s is not None:
            self._keepalive_s = min(self._keepalive_s * 2, MOST_KEEPALIVE_S)
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        # One that did not live longer than the back-off before it has not shown that the server is well.
        if self.loop.time() - self._attempted_at > self._delay_s:
            self._backoff.reset()
        self._not_before = self._attempted_at + self._delay_s
        self._move(ChannelConnectivity.IDLE)

    def on_closed(self, protocol: ClientProtocol) -> None:
        """Nothing is left of a connection."""
        self._leaving.discard(protocol)

    # Connecting.

    async def _connect(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._not_before - self.loop.time()))
            self._attempted_at = self.loop.time()
            self._delay_s = self._backoff.next_s()
            self._not_before = self._attempted_at + self._delay_s
            try:
                async with asyncio.timeout(max(self._options.connect_timeout_s, 0.001)):
                    protocol = await self._first_of(await self._find())
                if protocol.gone:
                    raise ConnectionError(protocol.error)
            except TimeoutError:
                self.error = f"no connection within {self._options.connect_timeout_s:g} s"
            except OSError as error:
                self.error = str(error) or type(error).__name__
            except Exception as error:
                # Whatever it was: with nobody trying any more, calls would wait for ever.
                log.exception("connecting failed in an unforeseen way")
                self.error = f"{type(error).__name__}: {error}"
            else:
                break
            # It stays so until there is a connection: calls that do not wait for one are not held up by every attempt.
            self._move(ChannelConnectivity.TRANSIENT_FAILURE)
        self._task = None
        self.protocol = protocol
        if self._keepalive_s is not None:
            self._keep(protocol, self._keepalive_s)
        self._move(ChannelConnectivity.READY)

    async def _first_of(self, addresses: Sequence[Address]) -> ClientProtocol:
        """Try addresses in their order, the next one when the last failed or takes long."""
        waiting: set[asyncio.Task[ClientProtocol]] = set()
        left = list(addresses)
        errors: list[str] = []
        try:
            while left or waiting:
                if left:
                    address = left.pop(0)
                    waiting.add(self.loop.create_task(self._open(address), name=str(address)))
                done, waiting = await asyncio.wait(
                    waiting, timeout=STAGGER_S if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                winner: ClientProtocol | None = None
                for task in done:
                    error = task.exception()
                    if error is not None:
                        errors.append(f"{task.get_name()}: {error or type(error).__name__}")
                    elif winner is None:
                        winner = task.result()
                    else:
                        task.result().abort("another address was faster")
                if winner is not None:
                    return winner
        finally:
            for task in waiting:
                task.add_done_callback(_give_up)
                task.cancel()
        raise ConnectionError("; ".join(errors[-4:]) or "no address")

    async def _open(self, address: Address) -> ClientProtocol:
        """One connection, up to the server's first word."""
        tls = self._host.tls
        name = self._host.tls_name if tls is not None else None
        protocol = ClientProtocol(self)
        try:
            if address.path:
                transport, _ = await self.loop.create_unix_connection(
                    lambda: protocol, address.path, ssl=tls, server_hostname=name
                )
            else:
                transport, _ = await self.loop.create_connection(
                    lambda: protocol, address.host, address.port, ssl=tls, server_hostname=name
                )
            if tls is not None:
                chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
                if chosen != ALPN:
                    raise ConnectionError(f"the server does not speak HTTP/2 under TLS (ALPN chose {chosen!r})")
            await protocol.settled
        except BaseException:
            protocol.abort("given up")
            raise
        return protocol

    def _move(self, state: ChannelConnectivity) -> None:
        if state is not self.state and not self._closed:
            self.state = state
            self._host.on_change(self)

    # Keepalive (gRFC A8): one timer a connection.

    def _keep(self, protocol: ClientProtocol, wait_s: float) -> None:
        self._keeper = self.loop.call_later(wait_s, self._look_at, protocol)

    def _look_at(self, protocol: ClientProtocol) -> None:
        every_s = self._keepalive_s
        assert every_s is not None
        now = self.loop.time()
        silent_s = now - protocol.heard_at
        if protocol.pinged_at is not None and protocol.heard_at > protocol.pinged_at:
            protocol.pinged_at = None  # the answer may be far behind in what comes, but something does come
        if protocol.pinged_at is not None:
            wait_s = protocol.pinged_at + self._options.keepalive_timeout_s - now
            if wait_s <= 0:
                protocol.abort(SILENT)
                return
        elif silent_s < every_s or not (protocol.calls or self._options.keepalive_without_calls):
            wait_s = every_s - silent_s if silent_s < every_s else every_s
        else:
            protocol.ping(now)
            wait_s = self._options.keepalive_timeout_s
        self._keep(protocol, max(wait_s, 0.001))


def _give_up(task: asyncio.Task[ClientProtocol]) -> None:
    """Hang up what a task that nobody waits for has opened all the same."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort("given up")
