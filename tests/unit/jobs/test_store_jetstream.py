from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest

from mesh.errors import InvalidInput, Overloaded, Unavailable
from mesh.jobs.records import Conflict
from mesh.jobs.store.connection import Connection
from mesh.jobs.store.group_commit import GroupCommit
from mesh.jobs.store.jetstream import ApiError, JetStream, new_token
from tests.harness.nats import Nats, nats_cluster, nats_server, settings_of
from tests.unit.jobs.store_given import PATIENCE_S, again, ask, begun, large, opened, tensors, work

BATCHES = {"allow_atomic": True, "allow_direct": True, "allow_msg_ttl": True}


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as started:
        yield started


@asynccontextmanager
async def a_stream(
    server: Nats, *, leader: bool = False, timeout_s: float = 20.0, **config: object
) -> AsyncGenerator[tuple[JetStream, str]]:
    """A stream of its own, whose subjects are below its name."""
    settings = settings_of(server, timeout_s=timeout_s)
    name = settings.graph
    body = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "max_msgs_per_subject": 1, **BATCHES, **config}
    told = await ask(server, f"STREAM.CREATE.{name}", **body)
    assert "error" not in told, told
    connection = Connection(settings)
    await connection.open()
    try:
        yield JetStream(connection, settings.timeout_s, leader=leader), name
    finally:
        await connection.close()
        await ask(server, f"STREAM.DELETE.{name}")


@pytest.mark.parametrize("leader", [False, True])
async def test_what_is_written_is_the_last_of_its_subject(server: Nats, leader: bool) -> None:
    async with a_stream(server, leader=leader) as (jetstream, name):
        subject = f"{name}.a"
        assert await jetstream.last(name, subject) is None
        data = bytes(range(256)) * 4
        first = await jetstream.write(name, subject, data, expected=0, token="mine")
        found = await jetstream.last(name, subject)
        assert found is not None
        assert (found.subject, found.sequence, found.data, found.token) == (subject, first, data, "mine")
        second = await jetstream.write(name, subject, b"", expected=first)
        found = await jetstream.last(name, subject)
        assert found is not None
        assert (found.sequence, found.data) == (second, b"")


async def test_whoever_expects_another_message_is_refused(server: Nats) -> None:
    async with a_stream(server) as (jetstream, name):
        subject = f"{name}.a"
        first = await jetstream.write(name, subject, b"one", expected=0)
        for expected in (0, first + 1):
            with pytest.raises(Conflict) as caught:
                await jetstream.write(name, subject, b"two", expected=expected)
            assert caught.value.revision == first
        assert await jetstream.write(name, subject, b"two") == first + 1


@pytest.mark.parametrize("leader", [False, True])
async def test_what_was_stored_without_an_answer_is_found_to_be_ours(server: Nats, leader: bool) -> None:
    async with a_stream(server, leader=leader) as (jetstream, name):
        token = new_token()
        first = await jetstream.write(name, f"{name}.a", b"one", expected=0, token=token)
        assert await jetstream.write(name, f"{name}.a", b"one", expected=0, token=token, repeated=True) == first
        with pytest.raises(Conflict):
            await jetstream.write(name, f"{name}.a", b"one", expected=0, token=new_token(), repeated=True)


async def test_a_message_is_gone_after_its_time(server: Nats) -> None:
    async with a_stream(server) as (jetstream, name):
        await jetstream.write(name, f"{name}.a", b"", ttl_s=0.01)
        async with asyncio.timeout(PATIENCE_S):
            while await jetstream.last(name, f"{name}.a") is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await jetstream.write(name, f"{name}.a", b"", expected=0)


async def test_messages_are_read_page_by_page(server: Nats) -> None:
    async with a_stream(server) as (jetstream, name):
        assert await jetstream.page(name, f"{name}.a.*", start=1, most=9, most_bytes=1 << 20) == ([], 0)
        for place in range(5):
            await jetstream.write(name, f"{name}.a.{place}", bytes(1000))
            await jetstream.write(name, f"{name}.b.{place}", b"")
        found, behind = await jetstream.page(name, f"{name}.a.*", start=1, most=3, most_bytes=1 << 20)
        assert ([one.sequence for one in found], behind) == ([1, 3, 5], 2)
        found, behind = await jetstream.page(name, f"{name}.a.*", start=6, most=9, most_bytes=1 << 20)
        assert ([one.sequence for one in found], behind) == ([7, 9], 0)
        found, behind = await jetstream.page(name, f"{name}.a.*", start=1, most=9, most_bytes=1500)
        assert (len(found) < 5, len(found) + behind) == (True, 5)


async def test_a_message_is_removed_once(server: Nats) -> None:
    async with a_stream(server) as (jetstream, name):
        sequence = await jetstream.write(name, f"{name}.a", b"")
        assert await jetstream.remove(name, sequence)
        assert not await jetstream.remove(name, sequence)
        assert await jetstream.last(name, f"{name}.a") is None


async def test_what_the_server_refuses_is_told_in_our_words(server: Nats) -> None:
    async with a_stream(server, max_msgs=1, discard="new", max_msg_size=100) as (jetstream, name):
        with pytest.raises(InvalidInput, match="larger"):
            await jetstream.write(name, f"{name}.a", bytes(200))
        await jetstream.write(name, f"{name}.a", b"")
        with pytest.raises(Overloaded, match="maximum messages exceeded") as caught:
            await jetstream.write(name, f"{name}.b", b"")
        assert caught.value.retry_after_s > 0
        with pytest.raises(ApiError):
            await jetstream.api("STREAM.INFO.nothing")
        with pytest.raises(Unavailable):
            await jetstream.ask("STREAM.INFO.nothing")


async def test_a_subject_of_no_stream_is_unavailable(server: Nats) -> None:
    async with a_stream(server, timeout_s=0.3) as (jetstream, name):
        with pytest.raises(Unavailable, match="has no JetStream"):
            await jetstream.write(name, "of.nobody", b"")


# Group commit.


@pytest.mark.parametrize("enabled", [True, False])
async def test_messages_of_many_are_each_stored_once(server: Nats, enabled: bool) -> None:
    async with a_stream(server) as (jetstream, name):
        group = GroupCommit(jetstream, name, 20.0, enabled=enabled)
        await asyncio.gather(*(group.write(f"{name}.{place}", b"%d" % place) for place in range(700)))
        await group.close()
        info = await ask(server, f"STREAM.INFO.{name}")
        assert (info["state"]["messages"], info["state"]["last_seq"]) == (700, 700)


async def test_one_who_is_refused_spoils_nothing_for_the_others(server: Nats) -> None:
    async with a_stream(server) as (jetstream, name):
        await jetstream.write(name, f"{name}.7", b"taken")
        group = GroupCommit(jetstream, name, 20.0, enabled=True)
        writes = (group.write(f"{name}.{place}", b"") for place in range(100))
        found = await asyncio.gather(*writes, return_exceptions=True)
        assert [place for place, one in enumerate(found) if one is not None] == [7]
        assert isinstance(found[7], Conflict)
        stored = await ask(server, f"STREAM.MSG.GET.{name}", last_by_subj=f"{name}.7")
        assert base64.b64decode(stored["message"]["data"]) == b"taken"


async def test_one_who_leaves_takes_nobody_along(server: Nats) -> None:
    async with a_stream(server) as (jetstream, name):
        group = GroupCommit(jetstream, name, 20.0, enabled=True)
        writes = [asyncio.create_task(group.write(f"{name}.{place}", b"")) for place in range(50)]
        await asyncio.sleep(0)
        for write in writes[::2]:
            write.cancel()
        found = await asyncio.gather(*writes, return_exceptions=True)
        assert found[1::2] == [None] * 25
        await group.write(f"{name}.after", b"")


async def test_writes_to_a_server_that_does_not_answer_end() -> None:
    with nats_server() as server:
        async with a_stream(server, timeout_s=0.4) as (jetstream, name):
            group = GroupCommit(jetstream, name, 0.4, enabled=True)
            server.pause()
            writes = (group.write(f"{name}.{place}", b"") for place in range(20))
            found = await asyncio.gather(*writes, return_exceptions=True)
            assert {type(one) for one in found} <= {Unavailable, Overloaded}
            await group.close()
            server.resume()


# A cluster.


async def test_a_cluster_keeps_jobs_while_one_of_its_servers_is_gone() -> None:
    with nats_cluster() as servers:
        urls = tuple(server.url for server in servers)
        # It takes some seconds until such a cluster has its leaders.
        async with (
            opened(servers[0], servers=urls, replicas=3, timeout_s=PATIENCE_S, lease_s=PATIENCE_S) as store,
            again(store) as other,
        ):
            jobs = [(await store.submit(work(inputs=large()), key=str(place)))[0] for place in range(3)]
            lease = await begun(other)
            servers[0].kill()
            jobs += [(await store.submit(work(), key=str(place)))[0] for place in range(3, 6)]
            assert await lease.done(tensors())
            servers[0].start()
            for _ in range(5):
                assert await (await begun(other)).done(tensors())
            assert {(await store.get(job.id)).outputs is not None for job in jobs} == {True}
            assert (await store.submit(work(inputs=large()), key="0"))[1]
