"""A cache layer around a scripted handler, and backends that fail in the ways backends do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mesh.caches import CacheBackend, Entry, Found, KeySpec
from mesh.caches.memory import MemoryBackend
from mesh.context import Context, Parameter
from mesh.handler import Handler, Layer
from mesh.layers import Cache, CacheSite
from mesh.tensors import Tensors
from mesh.testing import ManualClock
from tests.unit.layers.given import Asking, rows

__all__ = ["Caching", "FarBackend", "HeldBackend", "NearBackend", "RaisingBackend", "RubbishBackend"]


class FarBackend(MemoryBackend):
    """Has nothing at hand: it has to be asked, as one that is elsewhere."""

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        return None


class HeldBackend(FarBackend):
    """Answers lookups and puts when the test says so."""

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.looked: list[int] = []
        """Keys of each lookup."""
        self.gets = asyncio.Event()
        self.puts = asyncio.Event()
        self.gets.set()
        self.puts.set()

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        self.looked.append(len(keys))
        await self.gets.wait()
        return await super().get_many(namespace, keys, with_ttl=with_ttl)

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        await self.puts.wait()
        return await super().put_many(namespace, entries)


class NearBackend(HeldBackend):
    """The same, with everything at hand: a lookup is made only where something is missing."""

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        return MemoryBackend.at_hand(self, namespace, keys, least_s)


class RaisingBackend(FarBackend):
    """Breaks the rule that backends never raise."""

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        raise OSError("the disk is gone")

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        raise OSError("the disk is gone")


class RubbishBackend(FarBackend):
    """Finds everything, and what it finds is rubbish."""

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        return Found([b"\1\1" + b"x" * 50] * len(keys), [60.0] * len(keys) if with_ttl else [])


class Caching(Asking):
    """A bound cache layer around a scripted handler, and calls to it.

    Args:
        settings: The layer.
        backend: Its cache; a memory of its own where left out.
        site: What else the layer is told, such as `gives`.
    """

    def __init__(self, settings: Cache, backend: type[MemoryBackend] = HeldBackend, **site: object) -> None:
        self.made: CacheSite

        def bind(handler: Handler[Tensors]) -> Handler[Tensors]:
            return handler

        super().__init__(bind)
        self.backend: CacheBackend = backend(clock=self.clock)
        spec = KeySpec(uses="nodes.sample:Sample", version="1")
        self.made = CacheSite(keys=spec, namespace="g/node@1", backend=self.backend, **site)  # type: ignore[arg-type]
        layer: Layer = settings.bound(self.made)
        self.handler = layer(self.script)

    @property
    def counter(self) -> dict[str, int]:
        """What was counted, less what is zero."""
        counter = self.made.counter
        return {name: count for name in counter.__slots__ if (count := getattr(counter, name))}

    def asked(self, request_id: str = "r", **parameters: Parameter) -> Context:
        return Context(request_id=request_id, clock=self.clock, parameters=parameters)

    async def fill(self, *numbers: float) -> None:
        """Have the answers to these rows in the cache; the handler doubles."""
        task = await self.ask(rows(*numbers))
        await self.double()
        await task
