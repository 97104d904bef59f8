"""Which connection the next call goes to: `PickFirst`, `RoundRobin`, `LeastLoadedOfTwo`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from grpc import ChannelConnectivity

from mesh.wire.client_protocol import ClientProtocol
from mesh.wire.resolving import Address, NotResolved, Target, resolve
from mesh.wire.service_config import PICK_FIRST, ROUND_ROBIN
from mesh.wire.subchannel import Backoff, Subchannel, SubchannelHost

__all__ = ["Balancer", "LeastLoadedOfTwo", "PickFirst", "RoundRobin", "make_balancer"]


class Balancer(Protocol):
    """The connections of a channel."""

    error: str
    """Why there is no connection."""

    @property
    def state(self) -> ChannelConnectivity:
        """Of all connections together."""
        ...

    @property
    def protocols(self) -> list[ClientProtocol]:
        """All connections that have calls or may get some."""
        ...

    def pick(self) -> ClientProtocol | None:
        """A connection that takes one more call now."""
        ...

    def connect(self) -> None:
        """See to it that there is a connection, or will be."""
        ...

    def changed(self, subchannel: Subchannel, /) -> None:
        """Look at a connection that came or went."""
        ...

    def rest(self) -> None:
        """Give the connections up until the next call."""
        ...

    def close(self) -> list[asyncio.Future[None]]:
        """Give them up for good. What is returned is done when nothing is left."""
        ...


class PickFirst:
    """One connection, to the first address that answers."""

    def __init__(self, host: SubchannelHost, target: Target) -> None:
        self._only = Subchannel(host, lambda: resolve(target))
        self.error = ""

    @property
    def state(self) -> ChannelConnectivity:
        """Of the connection."""
        return self._only.state

    @property
    def protocols(self) -> list[ClientProtocol]:
        """The connection, and those that are being left."""
        return self._only.protocols

    def pick(self) -> ClientProtocol | None:
        """The connection, where it takes one more call."""
        protocol = self._only.protocol
        return protocol if protocol is not None and protocol.takes_calls else None

    def connect(self) -> None:
        """Make the connection."""
        self._only.connect()

    def changed(self, subchannel: Subchannel) -> None:
        """Remember why it failed."""
        self.error = subchannel.error

    def rest(self) -> None:
        """Give the connection up until the next call."""
        self._only.disconnect()

    def close(self) -> list[asyncio.Future[None]]:
        """Give it up for good."""
        return self._only.close()


class _Many:
    """A connection to every address."""

    def __init__(self, host: SubchannelHost, target: Target) -> None:
        self._host = host
        self._target = target
        self._by_address: dict[Address, Subchannel] = {}
        self._leaving: list[Subchannel] = []
        self._ready: list[Subchannel] = []
        self._resolver: asyncio.Task[None] | None = None
        self._resolved_at: float | None = None
        self._backoff = Backoff(host.options.initial_backoff_s, host.options.max_backoff_s)
        self._failed = False
        self._resting = True
        self.error = ""

    @property
    def state(self) -> ChannelConnectivity:
        """READY where one is, else CONNECTING where one is trying, else failure where all have failed."""
        if not self._by_address:
            if self._failed:
                return ChannelConnectivity.TRANSIENT_FAILURE
            return ChannelConnectivity.IDLE if self._resolver is None else ChannelConnectivity.CONNECTING
        states = {subchannel.state for subchannel in self._by_address.values()}
        for state in (ChannelConnectivity.READY, ChannelConnectivity.CONNECTING):
            if state in states:
                return state
        if ChannelConnectivity.IDLE in states:
            return ChannelConnectivity.IDLE
        return ChannelConnectivity.TRANSIENT_FAILURE

    @property
    def protocols(self) -> list[ClientProtocol]:
        """All connections."""
        every = (*self._by_address.values(), *self._leaving)
        return [protocol for subchannel in every for protocol in subchannel.protocols]

    def connect(self) -> None:
        """Connect to every address."""
        self._resting = False
        if self._target.addresses and not self._by_address:
            self._update(self._target.addresses)
        elif not self._target.addresses:
            self._look_up()
        for subchannel in self._by_address.values():
            subchannel.connect()

    def changed(self, subchannel: Subchannel) -> None:
        """A connection that is gone is made again, and its name looked up anew."""
        self._ready = [one for one in self._by_address.values() if one.protocol is not None]
        self._leaving = [one for one in self._leaving if one.protocols]
        if subchannel.error:
            self.error = subchannel.error
        if self._resting or subchannel not in self._by_address.values():
            return
        if subchannel.state is ChannelConnectivity.IDLE:
            subchannel.connect()
        if subchannel.state in (ChannelConnectivity.IDLE, ChannelConnectivity.TRANSIENT_FAILURE):
            self._look_up()

    def rest(self) -> None:
        """Give the connections up until the next call."""
        self._resting = True
        for subchannel in list(self._by_address.values()):
            subchannel.disconnect()

    def close(self) -> list[asyncio.Future[None]]:
        """Give them up for good."""
        self._resting = True
        left: list[asyncio.Future[None]] = []
        if self._resolver is not None:
            self._resolver.cancel()
            left.append(self._resolver)
        for subchannel in (*self._by_address.values(), *self._leaving):
            left += subchannel.close()
        return left

    def _update(self, addresses: Sequence[Address]) -> None:
        for address in addresses:
            if address not in self._by_address:
                self._by_address[address] = Subchannel(self._host, _always(address))
        for address in set(self._by_address).difference(addresses):
            gone = self._by_address.pop(address)
            gone.disconnect()
            self._leaving.append(gone)
        self._ready = [one for one in self._by_address.values() if one.protocol is not None]

    def _look_up(self) -> None:
        if not self._target.addresses and self._resolver is None:
            self._resolver = self._host.loop.create_task(self._resolve())

    async def _resolve(self) -> None:
        loop = self._host.loop
        try:
            if self._resolved_at is not None:
                await asyncio.sleep(self._resolved_at + self._host.options.resolve_interval_s - loop.time())
            while True:
                try:
                    addresses = await resolve(self._target)
                    break
                except NotResolved as error:
                    self.error = str(error)
                    if not self._by_address:
                        self._failed = True
                        self._host.on_room()
                        self._host.tell()
                    await asyncio.sleep(self._backoff.next_s())
        finally:
            self._resolver = None
        self._failed = False
        self._backoff.reset()
        self._resolved_at = loop.time()
        self._update(addresses)
        if not self._resting:
            for subchannel in list(self._by_address.values()):
                subchannel.connect()


class RoundRobin(_Many):
    """Each connection in its turn."""

    _turn = 0

    def pick(self) -> ClientProtocol | None:
        """The next connection that takes one more call."""
        ready = self._ready
        for _ in ready:
            self._turn = (self._turn + 1) % len(ready)
            protocol = ready[self._turn].protocol
            if protocol is not None and protocol.takes_calls:
                return protocol
        return None


class LeastLoadedOfTwo(_Many):
    """Of two connections picked at random the one with fewer calls under way (Mitzenmacher, "The Power of Two Choices
    in Randomized Load Balancing", 2001): nearly as even as asking all of them, at the cost of asking two.
    """

    def pick(self) -> ClientProtocol | None:
        """The better of two; where neither takes a call, the least loaded that does."""
        ready = self._ready
        two = ready if len(ready) <= 2 else random.sample(ready, 2)
        return _least_loaded(two) or (_least_loaded(ready) if len(ready) > 2 else None)


def _least_loaded(subchannels: Sequence[Subchannel]) -> ClientProtocol | None:
    best: ClientProtocol | None = None
    ties = 1
    for subchannel in subchannels:
        protocol = subchannel.protocol
        if protocol is None or not protocol.takes_calls:
            continue
        if best is None or len(protocol.calls) < len(best.calls):
            best, ties = protocol, 1
        elif len(protocol.calls) == len(best.calls):
            ties += 1
            if random.randrange(ties) == 0:
                best = protocol
    return best


def _always(address: Address) -> Callable[[], Awaitable[Sequence[Address]]]:
    async def find() -> Sequence[Address]:
        return (address,)

    return find


def make_balancer(policy: str, host: SubchannelHost, target: Target) -> Balancer:
    """The balancer of a policy's name (`service_config.POLICIES`)."""
    if policy == PICK_FIRST:
        return PickFirst(host, target)
    return RoundRobin(host, target) if policy == ROUND_ROBIN else LeastLoadedOfTwo(host, target)
