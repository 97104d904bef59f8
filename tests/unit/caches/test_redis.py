"""A real Valkey that is killed, paused, full, or no Valkey at all: never more than a miss, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest
import redis

from mesh.caches import Entry, encode_rows, open_backend, read_rows
from mesh.caches.addresses import RedisAddress
from mesh.caches.redis import RedisBackend
from mesh.errors import SetupError, Unavailable
from mesh.tensors import Tensors
from mesh.testing import ManualClock, settle
from tests.harness.valkey import Valkey, valkey
from tests.unit.caches.given_redis import ENTRIES, KEYS, connections, counts, listening, opened


@pytest.fixture(scope="module")
def shared() -> Generator[Valkey]:
    with valkey() as running:
        yield running


@pytest.fixture
def server(shared: Valkey) -> Valkey:
    shared.ask(b"FLUSHALL\r\n")
    return shared


@pytest.fixture
def own() -> Generator[Valkey]:
    """A server that a test may kill."""
    with valkey() as running:
        yield running


async def test_many_keys_are_one_command_and_many_values_one_write(server: Valkey) -> None:
    async with opened(server) as cache:
        await cache.probe()
        server.ask(b"CONFIG RESETSTAT\r\n")
        assert await cache.put_many("node", ENTRIES) == 64
        assert (await cache.get_many("node", KEYS)).values == [entry.value for entry in ENTRIES]
        told = server.ask(b"INFO commandstats\r\n")
        assert b"cmdstat_mget:calls=1," in told
        assert b"cmdstat_set:calls=64," in told
        assert connections(server) == 1


async def test_another_client_sees_the_bytes_as_they_are_and_how_long_they_stay(server: Valkey) -> None:
    async with opened(server) as cache:
        await cache.put_many("node@1", [Entry(KEYS[1], b"\x80\x04pickle?", 100.0), Entry(KEYS[2], b"for ever")])
    with redis.Redis(unix_socket_path=server.path) as client:
        assert client.get(b"mesh:node@1\0" + KEYS[1]) == b"\x80\x04pickle?"
        assert 99_000 < int(str(client.pttl(b"mesh:node@1\0" + KEYS[1]))) <= 100_000
        assert client.ttl(b"mesh:node@1\0" + KEYS[2]) == -1


async def test_what_others_keep_on_the_server_stays_when_everything_is_forgotten(server: Valkey) -> None:
    server.ask(b"SET other value\r\n")
    async with opened(server) as cache:
        await cache.put_many("node", ENTRIES)
        await cache.put_many("nodes", ENTRIES[:2])
        assert await cache.forget("node") == 64
        assert await cache.forget() == 2
    assert server.ask(b"GET other\r\n") == b"$5\r\nvalue\r\n"


async def test_many_thousand_entries_are_forgotten_and_counted_in_steps(server: Valkey) -> None:
    async with opened(server) as cache:
        entries = [Entry(number.to_bytes(16, "big"), b"value") for number in range(5000)]
        assert await cache.put_many("node", entries) == 5000
        found = await cache.get_many("node", [entry.key for entry in entries], with_ttl=True)
        assert found.values.count(b"value") == len(found.ttls_s) == 5000
        assert (await cache.read_stats("node")).entries == 5000
        assert await cache.forget("node") == 5000
        assert (await cache.read_stats("node")).entries == 0


async def test_values_that_others_changed_are_misses(server: Valkey) -> None:
    answer = Tensors({"label": [1, 2, 3, 4]})
    async with opened(server, max_value_bytes=200) as cache:
        values = encode_rows(KEYS[:4], answer)
        await cache.put_many("node", [Entry(key, value) for key, value in zip(KEYS, values, strict=False)])
        with redis.Redis(unix_socket_path=server.path) as client:
            client.append(b"mesh:node\0" + KEYS[0], b"x")
            client.set(b"mesh:node\0" + KEYS[1], values[0])
            client.delete(b"mesh:node\0" + KEYS[2])
            client.lpush(b"mesh:node\0" + KEYS[2], b"a list")
            client.set(b"mesh:node\0" + KEYS[4], b"x" * 201)
        found = await cache.get_many("node", KEYS[:5])
        hits = read_rows(KEYS, found.values)
        assert (hits.rows, hits.broken) == ([3], 2)
        assert (await cache.read_stats()).failures == 0


async def test_a_killed_server_is_misses_until_it_is_back_and_calls_in_flight_end_at_once(own: Valkey) -> None:
    clock = ManualClock()
    async with opened(own, clock=clock) as cache:
        assert await cache.put_many("node", ENTRIES) == 64
        own.pause()
        waiting = [asyncio.create_task(cache.get_many("node", KEYS)) for _ in range(20)]
        await settle()
        own.kill()
        for task in waiting:
            assert (await task).values == [None] * 64
        assert counts(await cache.read_stats()) == (0, 20 * 64, 20, 0)
        # A rest has begun: nothing is tried, and nobody waits.
        assert (await cache.get_many("node", KEYS, with_ttl=True)).ttls_s == [None] * 64
        assert await cache.put_many("node", ENTRIES) == 0
        assert (await cache.read_stats()).skipped == 2
        own.start()
        await clock.advance(1.0)
        assert await cache.put_many("node", ENTRIES) == 64
        assert (await cache.get_many("node", KEYS)).values == [entry.value for entry in ENTRIES]


async def test_a_paused_server_costs_its_timeout_and_late_replies_are_nobodys(own: Valkey) -> None:
    clock = ManualClock()
    async with opened(own, timeout_s=0.1, clock=clock) as cache:
        assert await cache.put_many("node", ENTRIES) == 64
        assert clock.planned == 0
        own.pause()
        lookup = asyncio.create_task(cache.get_many("node", KEYS[:2]))
        await clock.advance(0.09)
        assert not lookup.done()
        await clock.advance(0.01)
        assert (await lookup).values == [None, None]
        own.resume()
        # Its late reply is not taken for this one's.
        assert (await cache.get_many("node", KEYS[2:3])).values == [ENTRIES[2].value]
        assert counts(await cache.read_stats()) == (1, 2, 1, 0)
        assert clock.planned == 0


async def test_a_server_that_stays_paused_is_left_alone_and_tried_anew(own: Valkey) -> None:
    clock = ManualClock()
    async with opened(own, timeout_s=0.1, clock=clock) as cache:
        await cache.put_many("node", ENTRIES)
        own.pause()
        lookups = [asyncio.create_task(cache.get_many("node", KEYS)) for _ in range(3)]
        await clock.advance(0.1)
        assert [(await lookup).values for lookup in lookups] == [[None] * 64] * 3
        assert (await cache.get_many("node", KEYS)).values == [None] * 64
        assert counts(await cache.read_stats())[2:] == (3, 1)
        await clock.advance(10.0)
        probing = asyncio.create_task(cache.get_many("node", KEYS))
        await settle()
        assert (await cache.get_many("node", KEYS)).values == [None] * 64
        await clock.advance(0.1)
        assert (await probing).values == [None] * 64
        own.resume()
        await clock.advance(10.0)
        assert (await cache.get_many("node", KEYS)).values == [entry.value for entry in ENTRIES]


async def test_a_server_that_is_full_drops_the_least_recently_used_and_says_so() -> None:
    with valkey("maxmemory 4mb", "maxmemory-policy allkeys-lru", "maxmemory-samples 64") as server:
        async with opened(server) as cache:
            for number in range(1000):
                entry = Entry(number.to_bytes(16, "big"), bytes(8192))
                assert await cache.put_many("node", [entry]) == 1
                assert (await cache.get_many("node", [entry.key])).values == [entry.value]
            stats = await cache.read_stats()
            assert stats.max_bytes == 4 << 20
            assert stats.evictions > 500
            assert stats.nbytes is not None
            assert stats.nbytes < stats.max_bytes * 1.05


async def test_a_server_that_takes_nothing_more_is_counted_and_still_read() -> None:
    with valkey("maxmemory 4mb", "maxmemory-policy noeviction") as server:
        async with opened(server) as cache:
            kept = 0
            for number in range(1000):
                kept += await cache.put_many("node", [Entry(number.to_bytes(16, "big"), bytes(8192))])
            assert 50 < kept < 500
            stats = await cache.read_stats()
            assert (stats.kept, stats.failures, stats.skipped) == (kept, 1000 - kept, 0)
            assert (await cache.get_many("node", [bytes(16)])).values == [bytes(8192)]


async def test_a_server_without_anybody_listening_is_misses_and_says_why() -> None:
    async with opened("redis+unix:/nowhere/valkey.sock") as cache:
        assert "No such file" in await cache.probe()
        for _ in range(5):
            assert (await cache.get_many("node", KEYS)).values == [None] * 64
        assert counts(await cache.read_stats()) == (0, 320, 3, 2)
        for what in (cache.delete_many("node", KEYS), cache.forget("node")):
            with pytest.raises(Unavailable, match=r"the cache redis\+unix:/nowhere/valkey.sock does not answer"):
                await what


async def test_a_password_is_needed_given_and_never_shown() -> None:
    with valkey("requirepass secret") as server:
        with redis.Redis(unix_socket_path=server.path, password="secret") as client:
            client.execute_command("ACL", "SETUSER", "cacher", "on", ">other", "~mesh:*", "+@all")
        for address, trouble in (
            (RedisAddress(path=server.path), "Authentication required"),
            (RedisAddress(path=server.path, password="wrong"), "invalid username-password pair"),
            (RedisAddress(path=server.path, password="secret", db=99), "DB index is out of range"),
            (RedisAddress(path=server.path, password="secret", db=3), ""),
            (RedisAddress(path=server.path, username="cacher", password="other"), ""),
        ):
            cache = RedisBackend(address, timeout_s=30.0)
            told = await cache.probe()
            assert trouble in told if trouble else not told
            assert await cache.put_many("node", ENTRIES[:1]) == (not trouble)
            assert "secret" not in told + cache.url + repr(await cache.read_stats())
            await cache.close()


@pytest.mark.parametrize("left_ms", [-2, 0])
async def test_a_value_whose_time_nobody_knows_is_a_miss_where_times_are_asked_for(left_ms: int) -> None:
    async with listening(b":%d\r\n*1\r\n$1\r\nx\r\n" % left_ms) as (_, url), opened(url) as cache:
        found = await cache.get_many("node", KEYS[:1], with_ttl=True)
        assert (found.values, found.ttls_s) == ([None], [None])


async def test_keys_of_others_are_not_deleted_whatever_the_server_says() -> None:
    async with listening(b"*2\r\n$1\r\n0\r\n*1\r\n$5\r\nother\r\n") as (rubbish, url), opened(url) as cache:
        assert await cache.forget("node") == 0
        assert b"SCAN" in rubbish.asked
        assert b"UNLINK" not in rubbish.asked


async def test_a_reply_in_any_pieces_is_a_reply(server: Valkey) -> None:
    async with opened(server, max_value_bytes=8 << 20) as cache:
        large = bytes(range(256)) * (4 << 12)
        assert await cache.put_many("node", [Entry(KEYS[0], large), Entry(KEYS[1], b"small")]) == 2
        assert (await cache.get_many("node", KEYS[:3])).values == [large, b"small", None]


async def test_settings_reach_the_server(server: Valkey) -> None:
    cache = open_backend(server.url)
    async with opened(server, max_ttl_s=5.0) as short:
        await short.put_many("node", [Entry(KEYS[0], b"a"), Entry(KEYS[1], b"b", 100.0), Entry(KEYS[2], b"c", 1e300)])
        found = await cache.get_many("node", KEYS[:3], with_ttl=True)
        assert [ttl_s is not None and 4.0 < ttl_s <= 5.0 for ttl_s in found.ttls_s] == [True] * 3
    await cache.close()
    with pytest.raises(SetupError, match="timeout has to be above zero"):
        RedisBackend(RedisAddress(path="/x"), timeout_s=0.0)
