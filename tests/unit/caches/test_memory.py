"""Memory: bounded in bytes at every moment, the least recently used first, and no timers."""

from __future__ import annotations

import gc
import math
import random
import tracemalloc
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiocache
import pytest
from aiocache.serializers import JsonSerializer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.caches import Entry
from mesh.caches.backend import ENTRY_OVERHEAD
from mesh.caches.memory import MemoryBackend
from mesh.errors import SetupError
from mesh.testing import ManualClock

KEY = b"k" * 16
BOUND = 5000


T = TypeVar("T")


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of what never waits."""
    try:
        call.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class _Clock(ManualClock):
    time = 1000.0

    def now(self) -> float:
        return self.time


class MemoryMachine(RuleBasedStateMachine):
    """Beside a model: a list of entries, the least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = _Clock()
        self.cache = MemoryBackend(max_bytes=BOUND, max_value_bytes=2000, clock=self.clock)
        self.model: OrderedDict[tuple[str, bytes], tuple[bytes, float]] = OrderedDict()

    namespaces = st.sampled_from(["a", "ab"])
    keys = st.sampled_from([bytes([number]) * 16 for number in range(5)])

    @staticmethod
    def size(name: tuple[str, bytes], value: bytes) -> int:
        return len(name[0]) + 1 + len(name[1]) + len(value) + ENTRY_OVERHEAD

    def total(self) -> int:
        return sum(self.size(name, value) for name, (value, _) in self.model.items())

    @rule(
        namespace=namespaces,
        key=keys,
        size=st.sampled_from([0, 1, 600, 700, 1500, 2100]),
        ttl_s=st.none() | st.floats(-1, 10),
    )
    def put(self, namespace: str, key: bytes, size: int, ttl_s: float | None) -> None:
        value = bytes(size)
        stays = size <= 2000 and (ttl_s is None or ttl_s > 0)
        assert at_once(self.cache.put_many(namespace, [Entry(key, value, ttl_s)])) == stays
        self.model.pop((namespace, key), None)
        if stays:
            while self.total() + self.size((namespace, key), value) > BOUND:
                self.model.popitem(last=False)
            self.model[namespace, key] = (value, math.inf if ttl_s is None else self.clock.time + ttl_s)

    @rule(namespace=namespaces, keys=st.lists(keys, max_size=4), with_ttl=st.booleans())
    def get(self, namespace: str, keys: list[bytes], with_ttl: bool) -> None:
        found = at_once(self.cache.get_many(namespace, keys, with_ttl=with_ttl))
        wanted: list[bytes | None] = []
        times: list[float | None] = []
        for key in keys:
            value, end = self.model.pop((namespace, key), (None, 0.0))
            if value is None or end <= self.clock.time:
                wanted.append(None)
                times.append(None)
                continue
            self.model[namespace, key] = (value, end)
            wanted.append(value)
            times.append(None if end == math.inf else end - self.clock.time)
        assert found.values == wanted
        assert found.ttls_s == (times if with_ttl else [])

    @rule(namespace=namespaces, key=keys)
    def delete(self, namespace: str, key: bytes) -> None:
        there = self.model.pop((namespace, key), (b"", 0.0))[1] > self.clock.time
        assert at_once(self.cache.delete_many(namespace, [key])) == there

    @rule(namespace=namespaces | st.none())
    def forget(self, namespace: str | None) -> None:
        doomed = [name for name in self.model if namespace in (None, name[0])]
        for name in doomed:
            del self.model[name]
        assert at_once(self.cache.forget(namespace)) == len(doomed)

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.clock.time += seconds

    @invariant()
    def holds_what_it_says_and_never_more_than_its_bound(self) -> None:
        stats = at_once(self.cache.read_stats())
        assert (stats.entries, stats.nbytes) == (len(self.model), self.total())
        assert self.total() <= BOUND
        mine = at_once(self.cache.read_stats("a"))
        assert mine.entries == sum(name[0] == "a" for name in self.model)


MemoryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMemory = MemoryMachine.TestCase


@pytest.mark.parametrize("bound", [3 << 20, 4 << 20])
@pytest.mark.parametrize("longest", [1, 64, 4000])
def test_what_the_allocator_gives_never_passes_the_bound_by_more_than_five_per_cent(longest: int, bound: int) -> None:
    rng = random.Random(longest)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = MemoryBackend(max_bytes=bound)
        for number in range(20_000):
            key = number.to_bytes(16, "little")
            at_once(cache.put_many("node", [Entry(key, rng.randbytes(rng.randint(1, longest)), 60.0)]))
        # The peak: also while the dictionary is moved.
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert at_once(cache.read_stats()).evictions > 5_000
    assert bound * 0.4 <= most <= bound * 1.05


async def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryBackend(max_bytes=3 * (1000 + 22 + ENTRY_OVERHEAD))
    keys = [bytes([number]) * 16 for number in range(4)]
    await cache.put_many("node!", [Entry(key, bytes(1000)) for key in keys[:3]])
    await cache.get_many("node!", [keys[0]])
    await cache.put_many("node!", [Entry(keys[3], bytes(1000))])
    found = (await cache.get_many("node!", keys)).values
    assert [value is not None for value in found] == [True, False, True, True]


async def test_what_is_at_hand_is_used_by_that() -> None:
    cache = MemoryBackend(max_bytes=3 * (1000 + 22 + ENTRY_OVERHEAD))
    keys = [bytes([number]) * 16 for number in range(4)]
    await cache.put_many("node!", [Entry(key, bytes(1000)) for key in keys[:3]])
    assert cache.at_hand("node!", [keys[0]]) == [bytes(1000)]
    await cache.put_many("node!", [Entry(keys[3], bytes(1000))])
    assert cache.at_hand("node!", [keys[1]]) is None
    assert cache.at_hand("node!", [keys[0], keys[2], keys[3]]) == [bytes(1000)] * 3


async def test_a_time_that_ran_out_leaves_no_timer_and_is_counted_once() -> None:
    clock = ManualClock()
    cache = MemoryBackend(max_bytes=BOUND, clock=clock)
    await cache.put_many("node", [Entry(KEY, b"value", 1.0)])
    assert clock.planned == 0
    await clock.advance(1.0)
    assert (await cache.get_many("node", [KEY, KEY])).values == [None, None]
    stats = await cache.read_stats()
    assert (stats.hits, stats.misses, stats.expirations, stats.entries, stats.nbytes) == (0, 2, 1, 0, 0)


async def test_a_time_to_live_is_cut_to_the_longest() -> None:
    clock = ManualClock()
    cache = MemoryBackend(max_bytes=BOUND, max_ttl_s=5.0, clock=clock)
    await cache.put_many("node", [Entry(KEY, b"a"), Entry(KEY[::-1] + b"x", b"b", 9.0), Entry(KEY + b"y", b"c", 2.0)])
    found = await cache.get_many("node", [KEY, KEY[::-1] + b"x", KEY + b"y"], with_ttl=True)
    assert found.ttls_s == [5.0, 5.0, 2.0]


def test_a_bound_that_holds_nothing_is_refused() -> None:
    with pytest.raises(SetupError, match="at least 4096"):
        MemoryBackend(max_bytes=4095)


@pytest.mark.parametrize("namespace", ["", "a\0b", "a\n", "n" * 513])
async def test_a_namespace_that_could_be_taken_for_another_is_refused(namespace: str) -> None:
    with pytest.raises(SetupError, match="is no namespace"):
        await MemoryBackend(max_bytes=BOUND).get_many(namespace, [KEY])


async def test_it_works_behind_the_decorators_and_serializers_of_aiocache() -> None:
    cache = MemoryBackend(max_bytes=BOUND, serializer=JsonSerializer(), namespace="mine", ttl=60)
    calls = 0

    def key(*_: object) -> str:
        return "answer"

    @aiocache.cached(cache=MemoryBackend, key_builder=key, max_bytes=BOUND, serializer=JsonSerializer())
    async def answer(number: int) -> dict[str, int]:
        nonlocal calls
        calls += 1
        return {"number": number}

    assert await answer(1) == {"number": 1}
    assert await answer(1) == {"number": 1}
    assert calls == 1
    await cache.set("key", {"a": [1, "é"]})
    assert await cache.get("key") == {"a": [1, "é"]}
    assert (await cache.get_many("mine", [b"key"], with_ttl=True)).ttls_s[0] is not None
    assert await cache.clear() is True
    assert await cache.get("key") is None


async def test_what_is_no_bytes_needs_a_serializer() -> None:
    cache = MemoryBackend(max_bytes=BOUND)
    with pytest.raises(TypeError, match="a dict is no bytes: give the cache a serializer"):
        await cache.set("key", {"a": 1})
    with pytest.raises(NotImplementedError):
        await cache.set("key", b"value", _cas_token=b"token")
