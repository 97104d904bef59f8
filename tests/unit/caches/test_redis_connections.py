"""Connections to a server: few, never used again after anything went wrong, and nobody's replies are another's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator
from dataclasses import replace

import pytest

from mesh.caches import Entry
from mesh.caches.addresses import parse_redis
from mesh.caches.redis import RedisBackend
from mesh.testing import ManualClock, settle
from tests.harness.processes import wait_until
from tests.harness.valkey import Valkey, valkey
from tests.unit.caches.given_redis import ENTRIES, KEYS, connections, counts, listening, opened

MOST = 4
VALUES = [entry.value for entry in ENTRIES]


@pytest.fixture
def server() -> Generator[Valkey]:
    with valkey() as running:
        yield running


class AtOnce(ManualClock):
    """A clock whose timers run when a test says so, in the very turn of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._callbacks: list[Callable[[], object]] = []

    def call_at(self, when: float, callback: Callable[[], object]):  # type: ignore[no-untyped-def]
        self._callbacks.append(callback)
        return super().call_at(when, callback)

    def expire(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def _ids(server: Valkey) -> set[bytes]:
    """The server's numbers for connections, without the one that asks."""
    told = server.ask(b"CLIENT LIST\r\n").splitlines()
    return {line.split()[0] for line in told if line.startswith(b"id=") and b"cmd=client" not in line}


async def test_callers_share_few_connections(server: Valkey) -> None:
    async with opened(server) as cache:
        await cache.put_many("node", ENTRIES)
        assert connections(server) == 1
        for _ in range(3):
            found = await asyncio.gather(*(cache.get_many("node", [key]) for key in KEYS))
            assert [one.values for one in found] == [[value] for value in VALUES]
            assert connections(server) == MOST
        assert (await cache.read_stats()).failures == 0


@pytest.mark.parametrize("warm", [False, True])
async def test_a_caller_that_goes_away_at_any_moment_leaves_the_next_their_own_answers(
    server: Valkey, warm: bool
) -> None:
    async with opened(server) as filled:
        await filled.put_many("node", ENTRIES)
        for turns in range(40):
            async with opened(server) as cold:
                cache = filled if warm else cold
                gone = [asyncio.create_task(cache.get_many("node", KEYS[8 * one :])) for one in range(6)]
                await settle(turns)
                for task in gone:
                    task.cancel()
                found = await asyncio.gather(*(cache.get_many("node", [key]) for key in KEYS[:16]))
                assert [one.values for one in found] == [[value] for value in VALUES[:16]]
                assert (await cache.read_stats()).failures == 0
                await asyncio.wait(gone)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_call_whose_time_is_over_at_any_moment_leaves_the_next_their_own_answers(
    server: Valkey, warm: bool
) -> None:
    async with opened(server) as filled:
        await filled.put_many("node", ENTRIES)
    for turns in range(40):
        clock = AtOnce()
        async with opened(server, clock=clock) as cache:
            if warm:
                await asyncio.gather(*(cache.get_many("node", [key]) for key in KEYS))
            # As many as begin no rest; what is read meanwhile may be right, or nothing.
            late = [asyncio.create_task(cache.get_many("node", KEYS[20 * one :])) for one in range(2)]
            await settle(turns)
            clock.expire()
            for number, task in enumerate(late):
                values = (await task).values
                assert values in (VALUES[20 * number :], [None] * len(values))
            found = await asyncio.gather(*(cache.get_many("node", [key]) for key in KEYS[:16]))
            assert [one.values for one in found] == [[value] for value in VALUES[:16]]
            assert connections(server) <= MOST


async def test_a_call_given_up_once_it_was_sent_costs_no_connection(server: Valkey) -> None:
    async with opened(server) as cache:
        await cache.put_many("node", ENTRIES)
        (made,) = _ids(server)
        server.pause()
        lookup = asyncio.create_task(cache.get_many("node", KEYS))
        await settle()
        lookup.cancel()
        await settle()
        server.resume()
        assert (await cache.get_many("node", KEYS[5:6])).values == VALUES[5:6]
        assert made in _ids(server)
        assert (await cache.read_stats()).failures == 0


async def test_a_call_given_up_before_it_was_sent_is_not_sent(server: Valkey) -> None:
    async with opened(server) as cache:
        await asyncio.gather(*(cache.get_many("node", [key]) for key in KEYS))
        server.pause()
        ahead = [asyncio.create_task(cache.get_many("node", KEYS[:1])) for _ in range(MOST)]
        await settle()
        put = asyncio.create_task(cache.put_many("node", ENTRIES))
        await settle()
        put.cancel()
        server.resume()
        await asyncio.wait([*ahead, put])
        assert (await cache.get_many("node", KEYS)).values == [None] * 64
        assert put.cancelled()


async def test_a_connection_that_the_server_closed_meanwhile_is_no_failure(server: Valkey) -> None:
    async with opened(server) as cache:
        await cache.put_many("node", ENTRIES)
        server.ask(b"CLIENT KILL TYPE normal\r\n")
        await settle()
        assert (await cache.get_many("node", KEYS)).values == VALUES
        assert (await cache.read_stats()).failures == 0


async def test_what_a_server_that_is_paused_did_not_take_is_dropped_and_not_waited_for(server: Valkey) -> None:
    clock = ManualClock()
    async with opened(server, timeout_s=0.1, clock=clock) as cache:
        await cache.probe()
        server.pause()
        before = len(os.listdir("/dev/fd"))
        for _ in range(5):
            put = asyncio.create_task(cache.put_many("node", [Entry(KEYS[0], bytes(8 << 20))]))
            await clock.advance(0.1)
            assert await put == 0
            await clock.advance(1.0)
        assert len(os.listdir("/dev/fd")) < before
        server.resume()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*1\r\n$3\r\nabc\r\n",
        b"*2\r\n$3\r\nabc\r\n:7\r\n",
        b"*2\r\n*0\r\n$-1\r\n",
        b"$3\r\nabc\r\n",
        b"$abc\r\n",
        b"-ERR no\r\n",
        None,
        b"-LOADING the data set\r\n",
        b"+OK\r\n+OK\r\n",
    ],
)
async def test_rubbish_is_misses_and_the_connection_is_not_used_again(
    answer: bytes | None,
) -> None:
    async with listening(answer) as (rubbish, url), opened(url, clock=ManualClock()) as cache:
        for _ in range(4):
            assert (await cache.get_many("node", KEYS[:2])).values == [None, None]
        assert rubbish.connections == 3
        assert counts(await cache.read_stats())[:2] == (0, 8)
        assert (await cache.read_stats()).skipped == 1


async def test_connecting_is_tried_once_a_call() -> None:
    async with listening(None) as (rubbish, url):
        # Hung up on at AUTH.
        cache = RedisBackend(replace(parse_redis(url), password="p"), timeout_s=30.0, clock=ManualClock())
        for _ in range(4):
            assert (await cache.get_many("node", KEYS[:2])).values == [None, None]
        assert rubbish.connections == 3
        assert counts(await cache.read_stats()) == (0, 8, 3, 1)
        await cache.close()


@pytest.mark.parametrize("answer", [b"", b"*1\r\n$12\r\nval", b"*2\r\n$999999999999\r\n"])
async def test_a_connection_on_which_nothing_whole_comes_is_given_up(answer: bytes) -> None:
    clock = ManualClock()
    async with listening(answer) as (silent, url), opened(url, timeout_s=0.1, clock=clock) as cache:
        for connections_made in range(1, 5):
            lookup = asyncio.create_task(cache.get_many("node", KEYS[:1]))
            await silent.heard.wait()
            silent.heard.clear()
            await clock.advance(0.1)
            assert (await lookup).values == [None]
            assert silent.connections == connections_made
            await clock.advance(1.0)


async def test_closing_at_any_moment_leaves_no_connection(server: Valkey) -> None:
    before = connections(server)
    for turns in range(40):
        cache = RedisBackend(parse_redis(server.url), timeout_s=30.0)
        lookup = asyncio.create_task(cache.get_many("node", KEYS[:1]))
        await settle(turns)
        await cache.close()
        assert (await lookup).values == [None]
        await settle()
        wait_until(lambda: connections(server) == before, f"closed after {turns} turns, it is connected still")


async def test_a_caller_that_goes_away_while_connecting_does_not_harm_the_others(server: Valkey) -> None:
    async with opened(server) as cache:
        tasks = [asyncio.create_task(cache.put_many("node", [entry])) for entry in ENTRIES[:4]]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [1, 1, 1]


async def test_too_many_calls_without_an_answer_are_misses_at_once(server: Valkey) -> None:
    clock = ManualClock()
    async with opened(server, clock=clock) as cache:
        await cache.probe()
        server.pause()
        tasks = [asyncio.create_task(cache.get_many("node", KEYS[:1])) for _ in range(4097)]
        await settle()
        assert [task.done() for task in tasks] == [False] * 4096 + [True]
        await clock.advance(30.0)
        await asyncio.gather(*tasks)
        server.resume()


async def test_closing_ends_an_attempt_to_connect() -> None:
    async with listening(b"") as (_, url):
        address = replace(parse_redis(url), password="p")
        cache = RedisBackend(address, timeout_s=30.0)
        lookup = asyncio.create_task(cache.get_many("node", KEYS[:1]))
        await settle()
        await cache.close()
        assert (await lookup).values == [None]
