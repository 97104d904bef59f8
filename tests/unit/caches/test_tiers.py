"""Tiers: looked through from the top, filled on the way back, and never harmed by one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mesh.caches import CacheBackend, CacheStats, Entry, Found
from mesh.caches.memory import MemoryBackend
from mesh.caches.tiers import TieredBackend
from mesh.errors import SetupError, Unavailable
from mesh.testing import ManualClock, settle

KEYS = [bytes([number]) * 16 for number in range(4)]


class Failing:
    """A backend that breaks its own contract in every way."""

    url = "failing:"

    def __init__(self) -> None:
        self.closed = False
        self.answer: Found | None = None

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        if self.answer is None:
            raise RuntimeError("get")
        return self.answer

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> None:
        return None

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        raise RuntimeError("put")

    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        raise Unavailable("delete")

    async def forget(self, namespace: str | None = None) -> int:
        raise Unavailable("forget")

    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        return CacheStats(backend=self.url)

    async def probe(self) -> str:
        return "it fails"

    async def close(self) -> None:
        self.closed = True
        raise RuntimeError("close")


class Held(MemoryBackend):
    """Answers lookups when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        found = await super().get_many(namespace, keys, with_ttl=with_ttl)
        await self.go_on.wait()
        return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_what_the_uppermost_tier_has_is_at_hand_and_counted(clock: ManualClock) -> None:
    top, low = MemoryBackend(clock=clock), MemoryBackend(clock=clock)
    cache = TieredBackend([top, low])
    await top.put_many("n", [Entry(KEYS[0], b"top")])
    await low.put_many("n", [Entry(KEYS[1], b"low")])
    assert cache.at_hand("n", [KEYS[0], KEYS[0]]) == [b"top", b"top"]
    assert cache.at_hand("n", KEYS[:2]) is None
    stats = await cache.read_stats()
    assert (stats.hits, stats.misses, stats.tiers[0].hits, stats.tiers[1].hits) == (2, 0, 2, 0)


async def test_what_a_lower_tier_has_is_put_into_those_above_for_the_time_that_it_has_left(clock: ManualClock) -> None:
    top, middle, low = (MemoryBackend(clock=clock) for _ in range(3))
    cache = TieredBackend([top, middle, low])
    await low.put_many("n", [Entry(KEYS[0], b"low", 10.0), Entry(KEYS[1], b"for ever")])
    await middle.put_many("n", [Entry(KEYS[2], b"middle")])
    await top.put_many("n", [Entry(KEYS[3], b"top")])
    await clock.advance(4.0)
    found = await cache.get_many("n", [KEYS[3], KEYS[0], b"x" * 16, KEYS[2], KEYS[1]], with_ttl=True)
    assert found.values == [b"top", b"low", None, b"middle", b"for ever"]
    assert found.ttls_s == [None, 6.0, None, None, None]
    assert (await top.get_many("n", KEYS, with_ttl=True)) == Found(
        [b"low", b"for ever", b"middle", b"top"], [6.0, None, None, None]
    )
    assert (await middle.get_many("n", KEYS)).values == [b"low", b"for ever", b"middle", None]
    await clock.advance(6.0)
    assert (await cache.get_many("n", KEYS[:1])).values == [None]
    stats = await cache.read_stats()
    assert (stats.hits, stats.misses) == (4, 2)
    assert [tier.misses for tier in stats.tiers] == [5, 5, 2]


async def test_lower_tiers_are_asked_only_for_what_is_missing(clock: ManualClock) -> None:
    top, low = MemoryBackend(clock=clock), MemoryBackend(clock=clock)
    cache = TieredBackend([top, low])
    await cache.put_many("n", [Entry(key, b"value") for key in KEYS])
    await top.delete_many("n", KEYS[:1])
    assert (await cache.get_many("n", KEYS)).values == [b"value"] * 4
    assert (await low.read_stats()).hits == 1
    await cache.get_many("n", KEYS)
    assert (await low.read_stats()).hits == 1


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("answer", [None, Found([]), Found([b"x"] * 9, [1.0] * 9), Found([b"x"] * 4, [1.0])])
async def test_a_tier_that_fails_is_a_tier_that_missed(place: int, answer: Found | None) -> None:
    good, bad = MemoryBackend(), Failing()
    bad.answer = answer
    tiers: list[CacheBackend] = [good]
    tiers.insert(place, bad)
    cache = TieredBackend(tiers)
    assert await cache.put_many("n", [Entry(key, b"value") for key in KEYS[:3]]) == 3
    assert (await cache.get_many("n", KEYS)).values == [*[b"value"] * 3, None]
    stats = await cache.read_stats()
    assert stats.failures >= 2
    assert (stats.hits, stats.misses) == (3, 1)
    assert "failing:: it fails" in await cache.probe()


async def test_deleting_asks_every_tier_and_tells_when_one_did_not_answer() -> None:
    top, bad, low = MemoryBackend(), Failing(), MemoryBackend()
    cache = TieredBackend([top, bad, low])
    for what in (cache.delete_many("n", KEYS[:1]), cache.forget("n"), cache.forget()):
        await top.put_many("n", [Entry(KEYS[0], b"value")])
        await low.put_many("n", [Entry(KEYS[0], b"value")])
        with pytest.raises(Unavailable):
            await what
        assert (await top.get_many("n", KEYS[:1])).values == [None]
        assert (await low.get_many("n", KEYS[:1])).values == [None]


async def test_what_a_tier_gave_stays_as_it_was() -> None:
    bad, low = Failing(), MemoryBackend()
    bad.answer = Found([None, b"mine"], [None, None])
    await low.put_many("n", [Entry(KEYS[0], b"value")])
    found = await TieredBackend([bad, low]).get_many("n", KEYS[:2], with_ttl=True)
    assert found.values == [b"value", b"mine"]
    assert bad.answer == Found([None, b"mine"], [None, None])


@pytest.mark.parametrize("everything", [False, True])
async def test_what_is_deleted_while_it_is_looked_up_does_not_come_back(everything: bool) -> None:
    top, low = MemoryBackend(), Held()
    cache = TieredBackend([top, low])
    await low.put_many("n", [Entry(KEYS[0], b"value")])
    lookup = asyncio.create_task(cache.get_many("n", KEYS[:1]))
    await settle()
    assert await (cache.forget("n") if everything else cache.delete_many("n", KEYS[:1])) == 1
    low.go_on.set()
    assert (await lookup).values == [b"value"]
    assert (await cache.get_many("n", KEYS[:1])).values == [None]


async def test_every_tier_is_closed_also_behind_one_that_cannot_be() -> None:
    top, bad, low = MemoryBackend(), Failing(), MemoryBackend()
    await TieredBackend([top, bad, low]).close()
    assert bad.closed
    assert await low.put_many("n", [Entry(KEYS[0], b"value")]) == 0


def test_tiers_are_two_or_more_and_different() -> None:
    one = MemoryBackend()
    with pytest.raises(SetupError, match="two or more, each once, and not 1"):
        TieredBackend([one])
    with pytest.raises(SetupError, match="each once"):
        TieredBackend([one, one])
