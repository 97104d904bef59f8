"""A cache node as a backend: whatever becomes of it, a request goes on; who has to know is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.caches import BackendSettings, Entry
from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, Overloaded, RequestError, Unavailable
from mesh.handler import Handler
from mesh.keeping import CacheAnswer, CacheCall, CacheEntry
from mesh.runtime.keeping import NodeBackend, keeping
from mesh.testing import ManualClock, settle
from nodes.cache import MemoryCache

KEYS = [bytes([number]) * 16 for number in range(8)]
SETTINGS = BackendSettings(max_value_bytes=1000, timeout_s=0.1)


class Far:
    """What a backend reaches: a cache node that can fail."""

    def __init__(self, most_bytes: int = 4000) -> None:
        self.clock = ManualClock()
        self.node = MemoryCache(clock=self.clock)
        self.error: RequestError | None = None
        self.silent = False
        self.calls: list[CacheCall] = []
        self._answer: Any = keeping(self.node, "store", most_bytes)
        self.backend = NodeBackend("store", self._reach, SETTINGS, most_bytes, self.clock)

    async def _reach(self) -> Handler[Any]:
        async def call(request: CacheCall, context: Context, /) -> CacheAnswer:
            self.calls.append(request)
            if self.error is not None:
                raise self.error
            if self.silent:
                await asyncio.Event().wait()
            return await self._answer(request, context)

        made: Any = call
        return made

    async def found(self) -> list[bytes | None]:
        return (await self.backend.get_many("n", KEYS)).values

    async def told(self) -> dict[str, int]:
        told = await self.backend.read_stats()
        return {"failures": told.failures, "skipped": told.skipped}


@pytest.mark.parametrize("error", [Unavailable("gone"), Overloaded("full"), NodeFailed("broken"), InvalidInput("?")])
async def test_a_node_that_fails_has_missed_and_is_left_alone_for_a_while(error: RequestError) -> None:
    far = Far()
    await far.backend.put_many("n", [Entry(KEYS[0], b"value")])
    far.error = error
    for _ in range(5):
        assert await far.found() == [None] * 8
    assert await far.backend.put_many("n", [Entry(KEYS[1], b"value")]) == 0
    assert len(far.calls) == 4, "after three failures it rests"
    far.error = None
    assert await far.found() == [None] * 8
    await far.clock.advance(2.0)
    assert (await far.found())[0] == b"value"
    assert await far.told() == {"failures": 3, "skipped": 4}


async def test_a_node_that_does_not_answer_in_time_has_missed() -> None:
    far = Far()
    far.silent = True
    asking = asyncio.create_task(far.found())
    await settle()
    assert not asking.done()
    await far.clock.advance(0.11)
    assert asking.done()
    assert await asking == [None] * 8
    assert far.clock.planned == 0


async def test_who_wants_something_gone_is_told_that_nobody_knows() -> None:
    far = Far()
    far.error = Unavailable("gone")
    with pytest.raises(Unavailable, match="the cache node did not do so: gone"):
        await far.backend.delete_many("n", KEYS)
    with pytest.raises(Unavailable):
        await far.backend.forget()
    assert await far.backend.probe() == "gone"


async def test_what_one_call_does_not_carry_goes_in_several_and_comes_back_in_part() -> None:
    far = Far()
    entries = [Entry(key, key * 60) for key in KEYS]
    assert await far.backend.put_many("n", entries) == 8
    assert len(far.calls) == 3
    assert all(call.nbytes <= 4000 for call in far.calls)
    found = await far.found()
    assert found[:4] == [entry.value for entry in entries[:4]]
    assert found[4:] == [None] * 4


async def test_a_value_that_is_too_large_is_not_sent_and_what_was_there_is_gone() -> None:
    far = Far()
    await far.backend.put_many("n", [Entry(KEYS[0], b"small")])
    assert await far.backend.put_many("n", [Entry(KEYS[0], b"x" * 1001)]) == 0
    assert max(len(entry.value) for call in far.calls for entry in call.entries) == 5
    assert await far.found() == [None] * 8
    assert (await far.backend.read_stats()).refused == 1


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (CacheCall(verb="get", keys=(b"short",), namespace="n"), "16 to 64 bytes"),
        (CacheCall(verb="get", keys=(b"k" * 65,), namespace="n"), "16 to 64 bytes"),
        (CacheCall(verb="get", keys=(b"k" * 16,) * 4097, namespace="n"), "at most 4096"),
        (CacheCall(verb="put", entries=(CacheEntry(b"k", b""),), namespace="n"), "16 to 64 bytes"),
        (CacheCall(verb="get", keys=(b"k" * 16,), namespace=""), "1 to 512 bytes"),
        (CacheCall(verb="get", keys=(b"k" * 16,), namespace="a\nb"), "no control characters"),
        (CacheCall(verb="get", keys=(b"k" * 16,)), "needs the namespace"),
        (CacheCall(verb="prefetch", node="x"), "runs nothing"),
    ],
)
async def test_what_a_cache_node_does_not_take_is_refused(call: CacheCall, why: str) -> None:
    handler: Any = keeping(MemoryCache(), "store", 1000)
    with pytest.raises(InvalidInput, match=why) as refused:
        await handler(call, Context(request_id="r"))
    assert (refused.value.node, refused.value.request_id) == ("store", "r")
