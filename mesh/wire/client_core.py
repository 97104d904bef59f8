"""`ChannelCore`: what a channel is beneath its surface: its connections, and the line of calls that wait for one."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import grpc
from grpc import ChannelConnectivity

from mesh.wire.balancing import make_balancer
from mesh.wire.client_call import CANCELLED, ClientCall, timeout_field
from mesh.wire.client_options import ChannelOptions
from mesh.wire.credentials import ChannelCredentials
from mesh.wire.deadlines import Deadlines
from mesh.wire.limits import WireLimits
from mesh.wire.resolving import Target
from mesh.wire.responses import Status
from mesh.wire.retries import Retries
from mesh.wire.subchannel import Subchannel

__all__ = ["ChannelCore"]

REMEMBERED_TIMEOUTS: Final = 64
FAREWELL_S: Final = 0.2
"""How long closing a channel waits for its servers to take note (under TLS they are told, and answer)."""
IDLE_LOOKS: Final = 4
"""How often idleness is looked at within the time after which it counts."""


class ChannelCore:
    """A channel's connections and waiting calls. Lives on one event loop.

    Args:
        target: Where to.
        options: The channel's.
        credentials: Of TLS, or None for plain text.
        compress: Whether requests are compressed unless a call says otherwise.
        loop: The loop.
    """

    def __init__(
        self,
        target: Target,
        options: ChannelOptions,
        credentials: ChannelCredentials | None,
        *,
        compress: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop = loop
        self.target = target
        self.options = options
        self.limits = WireLimits(max_header_list_bytes=options.max_metadata_bytes)
        self.authority = options.authority or options.tls_name or target.authority
        self.compress = compress or options.compress
        self.scheme = b"http" if credentials is None else b"https"
        self.tls: ssl.SSLContext | None = None if credentials is None else credentials.context()
        self.tls_name = options.tls_name or target.name
        self.deadlines = Deadlines(loop)
        config = options.service_config
        self.retries = Retries(config.throttling, enabled=options.retries)
        self.closed = False
        self.closing = False
        self.line: dict[ClientCall, None] = {}
        """Calls that wait for a connection, or for a stream of one; first come, first served."""
        self._timeouts: dict[float, bytes] = {}
        self._balancer = make_balancer(config.policy, self, target)
        self._later: dict[ClientCall, asyncio.TimerHandle] = {}
        """Calls that wait to be tried again."""
        self._watchers: list[asyncio.Future[None]] = []
        self._told = ChannelConnectivity.IDLE
        self._serving = False
        self._idler: asyncio.TimerHandle | None = None
        self._calls_began = 0
        self._calls_seen = 0

    def check_open(self) -> None:
        """Raise grpc.aio.UsageError where the channel is closed."""
        if self.closing:
            raise grpc.aio.UsageError("Channel is closed.")

    # Calls.

    def timeout_field(self, seconds: float) -> bytes:
        """The field that tells how much time is left, from memory where it was made before."""
        found = self._timeouts.get(seconds)
        if found is None:
            if len(self._timeouts) >= REMEMBERED_TIMEOUTS:
                self._timeouts.clear()
            found = self._timeouts[seconds] = timeout_field(seconds)
        return found

    def submit(self, call: ClientCall) -> None:
        """Send a call, or let it wait for a connection."""
        if not self.line:
            protocol = self._balancer.pick()
            if protocol is not None:
                self._calls_began += 1
                call.send_on(protocol)
                return
        self._wait(call)

    def submit_later(self, call: ClientCall, delay_s: float) -> None:
        """The same after a while."""

        def again() -> None:
            del self._later[call]
            self.submit(call)

        self._later[call] = self.loop.call_later(delay_s, again)

    def leave(self, call: ClientCall) -> None:
        """A call does not wait any more."""
        self.line.pop(call, None)
        timer = self._later.pop(call, None)
        if timer is not None:
            timer.cancel()

    def _wait(self, call: ClientCall) -> None:
        if self.closed:
            call.give_up(Status(grpc.StatusCode.UNAVAILABLE, "the channel was closed"))
        elif self._balancer.state is ChannelConnectivity.TRANSIENT_FAILURE and not call.wait_for_ready:
            call.end_attempt(self._unavailable())
        elif len(self.line) >= self.options.max_waiting_calls:
            most = self.options.max_waiting_calls
            call.give_up(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{most} calls wait for a connection already"))
        else:
            self.line[call] = None
            self._balancer.connect()

    def _unavailable(self) -> Status:
        text = f"failed to connect to all addresses; last error: {self._balancer.error}"
        return Status(grpc.StatusCode.UNAVAILABLE, text)

    def on_room(self) -> None:
        """A stream is free: calls that wait may go on, later in this turn of the loop."""
        if self.line and not self._serving:
            self._serving = True
            self.loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        line = self.line
        while line:
            protocol = self._balancer.pick()
            if protocol is None:
                break
            call = next(iter(line))
            del line[call]
            self._calls_began += 1
            call.send_on(protocol)
        if line and self._balancer.state is ChannelConnectivity.TRANSIENT_FAILURE:
            status = self._unavailable()
            for call in [call for call in line if not call.wait_for_ready]:
                del line[call]
                call.end_attempt(status)
        elif line and self._balancer.state is ChannelConnectivity.IDLE:
            self._balancer.connect()
        self.tell()

    # Connections.

    def on_change(self, subchannel: Subchannel) -> None:
        """A connection came or went, or could not be made."""
        self._balancer.changed(subchannel)
        self.on_room()
        self.tell()
        if self._idler is None and self.options.idle_s is not None and not self.closing:
            self._idler = self.loop.call_later(self.options.idle_s / IDLE_LOOKS, self._look_for_idleness, 0)

    def _look_for_idleness(self, quiet: int) -> None:
        idle_s = self.options.idle_s
        assert idle_s is not None
        busy = self._calls_began != self._calls_seen or self.line or self._later
        self._calls_seen = self._calls_began
        self._idler = None
        if not busy and not any(protocol.calls for protocol in self._balancer.protocols):
            quiet += 1
            if quiet >= IDLE_LOOKS:
                self._balancer.rest()
                return
        else:
            quiet = 0
        self._idler = self.loop.call_later(idle_s / IDLE_LOOKS, self._look_for_idleness, quiet)

    @property
    def state(self) -> ChannelConnectivity:
        """Of all connections together."""
        return ChannelConnectivity.SHUTDOWN if self.closed else self._balancer.state

    def connect(self) -> None:
        """Connect, where nothing is connected."""
        if not self.closed and self._balancer.state is ChannelConnectivity.IDLE:
            self._balancer.connect()
            self.tell()

    def tell(self) -> None:
        """Tell whoever waits for another state, where it is one."""
        state = self.state
        if state is not self._told:
            self._told = state
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)

    async def state_changed(self, last: ChannelConnectivity) -> None:
        """Wait until the state is another than `last`."""
        while self.state is last:
            watcher = self.loop.create_future()
            self._watchers.append(watcher)
            try:
                await watcher
            finally:
                if watcher in self._watchers:
                    self._watchers.remove(watcher)

    # Ending.

    def _open_calls(self) -> list[ClientCall]:
        under_way = [call for protocol in self._balancer.protocols for call in protocol.calls.values()]
        return [*under_way, *self.line, *self._later]

    async def close(self, grace_s: float | None) -> None:
        """Take no more calls, let those there are go on for a while, cancel the rest, and hang up."""
        self.closing = True
        if grace_s and (calls := self._open_calls()):
            left = len(calls)
            over = self.loop.create_future()

            def one_less() -> None:
                nonlocal left
                left -= 1
                if left == 0 and not over.done():
                    over.set_result(None)

            for call in calls:
                call.on_done(one_less)
            await asyncio.wait({over}, timeout=grace_s)
        remains = [one for one in self.shut() if not one.done()]
        if remains:
            await asyncio.wait(remains, timeout=FAREWELL_S)
            for protocol in self._balancer.protocols:
                protocol.abort("the channel was closed")

    def shut(self) -> list[asyncio.Future[None]]:
        """Cancel what is under way, and hang up. What is returned is done when nothing is left."""
        self.closing = True
        if self.closed:
            return []
        for call in self._open_calls():
            call.cancel_with(CANCELLED)
        self.closed = True
        left = self._balancer.close()
        self.deadlines.close()
        if self._idler is not None:
            self._idler.cancel()
        self.tell()
        return left
