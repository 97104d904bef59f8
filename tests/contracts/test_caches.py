"""`check_cache` on every backend: in memory, on a real Valkey, in tiers; and on backends that break a rule."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import pytest

from mesh.caches import BackendSettings, CacheBackend, Entry, Found, Opener, open_backend
from mesh.caches.memory import MemoryBackend
from mesh.testing import CACHE_RULES, CacheBench, ManualClock, check_cache
from tests.harness.valkey import Valkey, valkey

MAX_VALUE_BYTES = 64 << 10
MAX_BYTES = 1 << 20
SETTINGS = BackendSettings(max_bytes=MAX_BYTES, max_value_bytes=MAX_VALUE_BYTES, timeout_s=30.0)


@pytest.fixture(scope="module")
def server() -> Generator[Valkey]:
    with valkey() as running:
        yield running


def memory_bench() -> CacheBench:
    clock = ManualClock()
    return CacheBench(
        make=lambda: open_backend("memory://", SETTINGS, clock=clock),
        pass_time=clock.advance,
        max_value_bytes=MAX_VALUE_BYTES,
        max_bytes=MAX_BYTES,
    )


def on_server(server: Valkey, make: Callable[[], CacheBackend], clock: ManualClock | None = None) -> CacheBench:
    async def pass_time(seconds: float) -> None:
        # The server's own clock: it answers when it has waited.
        server.ask(b"BLPOP nothing %f\r\n" % seconds)
        if clock is not None:
            await clock.advance(seconds)

    return CacheBench(make=make, pass_time=pass_time, max_value_bytes=MAX_VALUE_BYTES)


@pytest.mark.parametrize("rule", CACHE_RULES)
async def test_memory_keeps_the_contract(rule: str) -> None:
    await check_cache(memory_bench(), rule)


@pytest.mark.parametrize("rule", CACHE_RULES)
async def test_valkey_keeps_the_contract(rule: str, server: Valkey) -> None:
    await check_cache(on_server(server, lambda: open_backend(server.url, SETTINGS)), rule)


def in_memory(clock: ManualClock) -> Opener:
    def opened(url: str, settings: BackendSettings, _: object) -> CacheBackend:
        return MemoryBackend(max_bytes=settings.max_bytes, max_value_bytes=settings.max_value_bytes, clock=clock)

    return opened


@pytest.mark.parametrize("rule", CACHE_RULES)
async def test_memory_in_front_of_valkey_keeps_the_contract(rule: str, server: Valkey) -> None:
    clock = ManualClock()
    openers = {"memory": in_memory(clock)}  # whose clock moves with the server's, which has the system's for timeouts

    def make() -> CacheBackend:
        return open_backend(["memory://", server.url], SETTINGS, openers=openers)

    await check_cache(on_server(server, make, clock), rule)


@pytest.mark.parametrize("rule", CACHE_RULES)
async def test_three_tiers_keep_the_contract(rule: str) -> None:
    clock = ManualClock()
    openers = {"second": in_memory(clock), "third": in_memory(clock)}

    def make() -> CacheBackend:
        return open_backend(["memory://", "second:", "third:"], SETTINGS, clock=clock, openers=openers)

    await check_cache(CacheBench(make=make, pass_time=clock.advance, max_value_bytes=MAX_VALUE_BYTES), rule)


# ===== the checker itself =====


class Unordered(MemoryBackend):
    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        return await super().get_many(namespace, sorted(keys), with_ttl=with_ttl)


class NoNamespaces(MemoryBackend):
    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        return await super().get_many("same", keys, with_ttl=with_ttl)

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        return await super().put_many("same", entries)


class Joined(MemoryBackend):
    """Namespace and key run together, as aiocache has it."""

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        return await super().get_many("same", [namespace.encode() + key for key in keys], with_ttl=with_ttl)

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        return await super().put_many("same", [entry._replace(key=namespace.encode() + entry.key) for entry in entries])

    async def forget(self, namespace: str | None = None) -> int:
        doomed = [full for full in self._entries if full.startswith(b"same\0" + (namespace or "").encode())]
        for full in doomed:
            del self._entries[full]
        return len(doomed)


class Everlasting(MemoryBackend):
    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        return await super().put_many(namespace, [entry._replace(ttl_s=None) for entry in entries])


class KeepsOld(MemoryBackend):
    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        fitting = [entry for entry in entries if len(entry.value) <= MAX_VALUE_BYTES]
        self._refused += len(entries) - len(fitting)
        return await super().put_many(namespace, fitting)


class Unbounded(MemoryBackend):
    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        self._max_bytes = 1 << 40
        return await super().put_many(namespace, entries)


class Hasty(MemoryBackend):
    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        return super().at_hand(namespace, keys)


class Undead(MemoryBackend):
    async def close(self, *args: object, **kwargs: object) -> None:
        pass


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Unordered, "kept"),
        (NoNamespaces, "namespaces"),
        (Joined, "namespaces"),
        (Everlasting, "time to live"),
        (KeepsOld, "too large"),
        (Unbounded, "bound"),
        (Hasty, "at hand"),
        (Undead, "closing"),
    ],
)
async def test_the_checker_finds_what_breaks_a_rule(broken: type[MemoryBackend], rule: str) -> None:
    clock = ManualClock()
    bench = CacheBench(
        make=lambda: broken(max_bytes=MAX_BYTES, max_value_bytes=MAX_VALUE_BYTES, clock=clock),
        pass_time=clock.advance,
        max_value_bytes=MAX_VALUE_BYTES,
        max_bytes=MAX_BYTES,
    )
    with pytest.raises(AssertionError, match=rf"the rule '{rule}'"):
        await check_cache(bench)


def test_every_rule_is_in_the_table_of_the_checker() -> None:
    import mesh.testing.contracts_cache as checker

    told = {line.split("|")[1].strip() for line in (checker.__doc__ or "").splitlines() if line.startswith("| ")}
    assert told - {"rule"} == {*CACHE_RULES, "no trace"}
