"""`check_cache`: everything that a mesh expects of a cache's backend, tried on a real one.

| rule | what has to hold |
|---|---|
| kept | what was put is found, byte for byte, in the order of the keys, twice where asked for twice |
| missing | what was never put is not found, and no keys find nothing |
| replaced | a key has the value that was put last |
| any bytes | values and keys may be any bytes, values also none at all |
| namespaces | the same key in two namespaces is two entries, and no namespace is part of another |
| deleting | what was deleted is gone, and its count is told |
| forgetting | a namespace that was forgotten is empty, others are as they were; forgetting everything leaves nothing |
| time to live | a value is not found after its time, and never told to stay longer than it was put for |
| no time left | a time to live of zero, below, or that is no number keeps nothing, and forgets what was there |
| at hand | what is there without waiting is what a lookup would find of all the keys, with the time left, or nothing |
| too large | a value above the largest is not kept, and what its key had is gone |
| bound | however much is put, bytes never pass the bound, and what was put last is there |
| statistics | every key that was asked for is counted, as a hit or a miss |
| many at once | calls at the same time get each its own answer |
| cancellation | a call that is cancelled ends at once and harms nobody |
| aiocache | the same entries work through aiocache's methods, where it is an aiocache backend |
| closing | a closed backend finds and keeps nothing, fails nobody, and may be closed again |
| no trace | nothing is left on the event loop |
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mesh.caches import CacheBackend, Entry
from mesh.errors import Unavailable
from mesh.testing.clock import settle

__all__ = ["CACHE_RULES", "CacheBench", "check_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheBench:
    """A backend under test: what the rules work with."""

    make: Callable[[], CacheBackend]
    """Makes the backend; always on the same storage, if it outlives it."""
    pass_time: Callable[[float], Awaitable[None]]
    """Lets seconds pass by the clock that times to live are measured by."""
    max_value_bytes: int
    """The largest value that it keeps; at most 1 MiB, so that the rules stay quick."""
    max_bytes: int | None = None
    """The bound that its statistics tell, where it is its own."""
    shortest_ttl_s: float = 0.05
    """A time to live that the rules work with: long enough for a few calls, short enough to be waited for."""


def _hold(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()[:16]


KEYS = [_key(number) for number in range(8)]


async def kept(backend: CacheBackend, bench: CacheBench) -> None:
    """What was put is found, byte for byte, in the order of the keys."""
    entries = [Entry(key, b"value %d" % number) for number, key in enumerate(KEYS)]
    _hold(await backend.put_many("kept", entries) == len(entries), "it does not say that it kept what it was given")
    asked = [*reversed(KEYS), KEYS[3], _key(99), KEYS[3]]
    wanted = {entry.key: entry.value for entry in entries}
    found = await backend.get_many("kept", asked)
    _hold(found.values == [wanted.get(key) for key in asked], f"asked for what was put, it found {found.values}")
    _hold(found.ttls_s == [], "it tells times to live that nobody asked for")
    found = await backend.get_many("kept", asked, with_ttl=True)
    _hold(found.values == [wanted.get(key) for key in asked], f"asked for times as well, it found {found.values}")
    _hold(len(found.ttls_s) == len(asked), f"{len(found.ttls_s)} times to live for {len(asked)} keys")


async def missing(backend: CacheBackend, bench: CacheBench) -> None:
    """What was never put is not found."""
    _hold((await backend.get_many("missing", KEYS)).values == [None] * len(KEYS), "it found what nobody put")
    _hold((await backend.get_many("missing", [])).values == [], "it found something under no key")
    _hold(await backend.put_many("missing", []) == 0, "it kept something where nothing was put")


async def replaced(backend: CacheBackend, bench: CacheBench) -> None:
    """A key has the value that was put last, also within one call."""
    await backend.put_many("replaced", [Entry(KEYS[0], b"first", 1000.0)])
    await backend.put_many("replaced", [Entry(KEYS[0], b"second"), Entry(KEYS[0], b"third")])
    found = await backend.get_many("replaced", KEYS[:1], with_ttl=True)
    _hold(found.values == [b"third"], f"put three times, it has {found.values[0]!r}")


async def any_bytes(backend: CacheBackend, bench: CacheBench) -> None:
    """Values and keys are bytes like any others."""
    every = bytes(range(256))
    values = [b"", b"\0", every, b"\r\n$-1\r\n", every * (bench.max_value_bytes // 256)]
    keys = [b"\r\n" * 8, b"*" * 16, every[:32], b"\xff" * 16, b"\0" * 16]
    await backend.put_many("any bytes", [Entry(key, value) for key, value in zip(keys, values, strict=True)])
    for key, value in zip(keys, values, strict=True):
        found = (await backend.get_many("any bytes", [key])).values
        _hold(found == [value], f"a value of {len(value)} bytes came back as {found!r:.100}")


async def namespaces(backend: CacheBackend, bench: CacheBench) -> None:
    """The same key in two namespaces is two entries; names that hold or resemble each other do not meet."""
    names = ["a", "ab", "a:b", "a*", "a?", "a[b]", "a\\", "ü", "a@1.0", "A"]
    for number, name in enumerate(names):
        await backend.put_many(name, [Entry(KEYS[0], b"%d" % number)])
    for number, name in enumerate(names):
        found = (await backend.get_many(name, KEYS[:1])).values
        _hold(found == [b"%d" % number], f"namespace {name!r} has {found} where {number} was put")
    for number, name in enumerate(names):
        _hold(await backend.forget(name) == 1, f"one entry in {name!r}, and it says another number")
        for other in names[number + 1 :]:
            found = (await backend.get_many(other, KEYS[:1])).values
            _hold(found != [None], f"forgetting {name!r} emptied {other!r}")
    # The end of a namespace is told from the beginning of a key.
    await backend.put_many("n", [Entry(b"x" + b"k" * 16, b"1")])
    _hold((await backend.get_many("nx", [b"k" * 16])).values == [None], "a namespace and a key run together")


async def deleting(backend: CacheBackend, bench: CacheBench) -> None:
    """What was deleted is gone."""
    await backend.put_many("deleting", [Entry(key, b"value") for key in KEYS])
    count = await backend.delete_many("deleting", [KEYS[0], _key(99), KEYS[1]])
    _hold(count == 2, f"it says that {count} of 2 keys were there")
    found = (await backend.get_many("deleting", KEYS)).values
    _hold(found == [None, None, *[b"value"] * 6], f"with two of eight deleted, it has {found}")
    _hold(await backend.delete_many("deleting", []) == 0, "it deleted something where nothing was asked for")


async def forgetting(backend: CacheBackend, bench: CacheBench) -> None:
    """A namespace that was forgotten is empty, and the others are as they were."""
    many = [Entry(_key(number), b"value") for number in range(20)]
    await backend.put_many("forgotten", many)
    await backend.put_many("beside", many[:1])
    _hold(await backend.forget("forgotten") == len(many), "it does not tell how many entries it forgot")
    found = (await backend.get_many("forgotten", [entry.key for entry in many])).values
    _hold(found == [None] * len(many), "it finds what was forgotten")
    _hold((await backend.get_many("beside", KEYS[:1])).values == [b"value"], "it forgot a namespace beside")
    _hold(await backend.forget("never used") == 0, "it forgot what there was not")
    _hold(await backend.forget() >= 1, "it does not tell how many entries there were in all")
    _hold(
        (await backend.get_many("beside", KEYS[:1])).values == [None], "it finds something, with everything forgotten"
    )


async def time_to_live(backend: CacheBackend, bench: CacheBench) -> None:
    """A value is not found after its time."""
    short = bench.shortest_ttl_s
    await backend.put_many(
        "ttl", [Entry(KEYS[0], b"long", 1000.0), Entry(KEYS[1], b"for ever"), Entry(KEYS[2], b"very long", 1e12)]
    )
    found = await backend.get_many("ttl", KEYS[:3], with_ttl=True)
    _hold(found.values == [b"long", b"for ever", b"very long"], f"just put, it has {found.values}")
    left_s = found.ttls_s[0]
    _hold(left_s is not None and 900.0 < left_s <= 1000.0, f"put for 1000 s, it stays for {left_s}")
    await backend.put_many("ttl", [Entry(KEYS[3], b"short", short), Entry(KEYS[4], b"short, then long", short)])
    await backend.put_many("ttl", [Entry(KEYS[4], b"short, then long", 1000.0), Entry(KEYS[1], b"soon over", short)])
    await bench.pass_time(short * 1.5)
    values = (await backend.get_many("ttl", KEYS[:5])).values
    wanted = [b"long", None, b"very long", None, b"short, then long"]
    _hold(values == wanted, f"with the shorter times over, it has {values}")


async def no_time_left(backend: CacheBackend, bench: CacheBench) -> None:
    """No value is kept without time; what was there is older still, and gone."""
    await backend.put_many("no time", [Entry(key, b"value") for key in KEYS[:3]])
    times = (0.0, -1.0, float("nan"))
    entries = [Entry(key, b"new", ttl_s) for key, ttl_s in zip(KEYS, times, strict=False)]
    _hold(await backend.put_many("no time", entries) == 0, "it says that it kept values without time")
    found = (await backend.get_many("no time", KEYS[:3])).values
    _hold(found == [None] * 3, f"put without time, it has {found}")


async def at_hand(backend: CacheBackend, bench: CacheBench) -> None:
    """What is there without waiting is what a lookup would find of all the keys, with the time left, or nothing."""
    await backend.put_many("at hand", [Entry(KEYS[0], b"zero", 1000.0), Entry(KEYS[1], b"one")])
    for keys, least_s, may in (
        ([KEYS[1], KEYS[0], KEYS[1]], 0.0, True),
        ([KEYS[0]], 100.0, True),
        ([KEYS[0], KEYS[1]], 2000.0, False),
        ([KEYS[0], KEYS[2]], 0.0, False),
    ):
        given = backend.at_hand("at hand", keys, least_s)
        found = (await backend.get_many("at hand", keys)).values
        _hold(given is None or (may and given == found), f"it had {given} at hand, where a lookup found {found}")
    _hold(backend.at_hand("elsewhere", KEYS[:1]) is None, "it had at hand what was put into another namespace")


async def too_large(backend: CacheBackend, bench: CacheBench) -> None:
    """A value above the largest is not kept, harms none beside it, and leaves nothing older behind."""
    await backend.put_many("too large", [Entry(KEYS[0], b"old"), Entry(KEYS[1], b"old")])
    before = await backend.read_stats()
    count = await backend.put_many(
        "too large", [Entry(KEYS[0], bytes(bench.max_value_bytes + 1)), Entry(KEYS[1], b"new")]
    )
    _hold(count == 1, f"given a value that is too large and another, it says that it kept {count}")
    found = (await backend.get_many("too large", KEYS[:2])).values
    _hold(found == [None, b"new"], f"given a value that is too large and another, it has {found!r:.100}")
    after = await backend.read_stats()
    told = [(one.refused, two.refused) for one, two in zip((before, *before.tiers), (after, *after.tiers), strict=True)]
    _hold(any(one < two for one, two in told), "a value that is too large is not counted as refused")


async def bound(backend: CacheBackend, bench: CacheBench) -> None:
    """However much is put, bytes never pass the bound."""
    if bench.max_bytes is None:
        return
    size = max(1, min(bench.max_value_bytes, bench.max_bytes // 10))
    for number in range(40):
        value = bytes([number]) * (size - number % 7)
        _hold(
            await backend.put_many("bound", [Entry(_key(number), value)]) == 1, "it did not keep what there is room for"
        )
        nbytes = (await backend.read_stats()).nbytes
        _hold(nbytes is not None and nbytes <= bench.max_bytes, f"it has {nbytes} bytes of at most {bench.max_bytes}")
        _hold((await backend.get_many("bound", [_key(number)])).values == [value], "what was put last is not there")
    _hold((await backend.read_stats()).evictions > 0, "four times its bound were put, and it dropped nothing")


async def statistics(backend: CacheBackend, bench: CacheBench) -> None:
    """Every key that was asked for is counted."""
    await backend.put_many("statistics", [Entry(key, b"value") for key in KEYS[:3]])
    before = await backend.read_stats()
    await backend.get_many("statistics", KEYS)
    await backend.get_many("statistics", KEYS[:2], with_ttl=True)
    after = await backend.read_stats()
    hits, misses = after.hits - before.hits, after.misses - before.misses
    _hold((hits, misses) == (5, 5), f"5 hits and 5 misses are counted as {hits} and {misses}")
    _hold(after.failures == 0, f"{after.failures} failures where there was none")
    _hold(after.backend == backend.url, f"statistics of {after.backend} for {backend.url}")
    mine = await backend.read_stats("statistics")
    counts = [one.entries for one in (mine, *mine.tiers) if one.entries is not None]
    _hold(all(count == 3 for count in counts), f"3 entries in a namespace are counted as {counts}")
    _hold(await backend.probe() == "", "a backend that works says that it cannot be used")


async def many_at_once(backend: CacheBackend, bench: CacheBench) -> None:
    """Calls at the same time get each its own answer."""

    async def one(number: int) -> list[bytes | None]:
        await backend.put_many("many", [Entry(_key(number), b"%d" % number)])
        return (await backend.get_many("many", [_key(number), _key(-number - 1)])).values

    found = await asyncio.gather(*(one(number) for number in range(50)))
    wrong = [number for number, values in enumerate(found) if values != [b"%d" % number, None]]
    _hold(not wrong, f"of 50 calls at once, {wrong} were given something else than their own")


async def cancellation(backend: CacheBackend, bench: CacheBench) -> None:
    """A call that is cancelled ends at once and harms nobody."""
    await backend.put_many("cancelled", [Entry(key, b"value") for key in KEYS])
    for turns in range(4):
        tasks = [asyncio.create_task(backend.get_many("cancelled", [key])) for key in KEYS]
        await settle(turns)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for number, outcome in enumerate(found):
            gone = number % 2 == 0 and isinstance(outcome, asyncio.CancelledError)
            right = not isinstance(outcome, BaseException) and outcome.values == [b"value"]
            _hold(gone or right, f"beside calls that were cancelled, one ended in {outcome!r}")
    _hold(
        (await backend.get_many("cancelled", KEYS)).values == [b"value"] * 8, "after cancelled calls, entries are lost"
    )


async def aiocache(backend: CacheBackend, bench: CacheBench) -> None:
    """What aiocache's callers rely on."""
    if not hasattr(backend, "multi_get"):
        return
    cache = cast("Any", backend)
    _hold(await cache.set("key", b"value", ttl=1000) is True, "set does not say that it did")
    _hold(await cache.get("key") == b"value", "get does not find what was set")
    _hold(await cache.get("other", default=7) == 7, "get does not give its default")
    _hold(await cache.multi_set([("a", b"1"), ("b", b"2")]) is True, "multi_set does not say that it did")
    _hold(await cache.multi_get(["b", "none", "a"]) == [b"2", None, b"1"], "multi_get loses values, or their order")
    _hold(await cache.exists("a") is True and await cache.exists("none") is False, "exists is wrong")
    _hold(await cache.delete("a") == 1 and await cache.delete("a") == 0, "delete does not count")
    await cache.set("key", b"elsewhere", namespace="beside")
    _hold(await cache.get("key") == b"value", "namespaces meet")
    await cache.clear(namespace="beside")
    _hold(await cache.get("key", namespace="beside") is None, "clear leaves its namespace as it was")
    _hold(await cache.get("key") == b"value", "clear empties other namespaces")
    await cache.set("short", b"value", ttl=bench.shortest_ttl_s)
    await bench.pass_time(bench.shortest_ttl_s * 1.5)
    _hold(await cache.get("short") is None, "a value is found after its ttl")


async def closing(backend: CacheBackend, bench: CacheBench) -> None:
    """A closed backend finds and keeps nothing, and fails nobody."""
    await backend.put_many("closing", [Entry(KEYS[0], b"value")])
    await backend.close()
    await backend.close()
    _hold((await backend.get_many("closing", KEYS[:2])).values == [None, None], "closed, it finds something")
    _hold(await backend.put_many("closing", [Entry(KEYS[0], b"value")]) == 0, "closed, it says that it keeps something")
    _hold((await backend.read_stats()).backend == backend.url, "closed, it has no statistics")
    with contextlib.suppress(Unavailable):
        _hold(await backend.delete_many("closing", KEYS) == 0, "closed, it deletes something")


CacheRule = Callable[[CacheBackend, CacheBench], Awaitable[None]]

CACHE_RULES: Mapping[str, CacheRule] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        kept,
        missing,
        replaced,
        any_bytes,
        namespaces,
        deleting,
        forgetting,
        time_to_live,
        no_time_left,
        at_hand,
        too_large,
        bound,
        statistics,
        many_at_once,
        cancellation,
        aiocache,
        closing,
    )
}
"""Every rule by its name; "no trace" is held after each of them."""


async def check_cache(bench: CacheBench, *rules: str) -> None:
    """Hold a backend against the rules; the first one broken is raised.

    Args:
        bench: The backend. It begins empty, and is emptied after every rule.
        rules: Names of `CACHE_RULES`; all of them where none is named.

    Raises:
        AssertionError: A rule is broken; names it.
    """
    for name in rules or CACHE_RULES:
        tasks = asyncio.all_tasks()
        backend = bench.make()
        try:
            await CACHE_RULES[name](backend, bench)
        except AssertionError as error:
            raise AssertionError(f"the cache breaks the rule '{name}': {error}") from error
        finally:
            await backend.close()
        await settle()
        left = asyncio.all_tasks() - tasks
        if left:
            raise AssertionError(f"the cache breaks the rule 'no trace' after '{name}': {left} are left")
        emptied = bench.make()
        try:
            await emptied.forget()
        finally:
            await emptied.close()
