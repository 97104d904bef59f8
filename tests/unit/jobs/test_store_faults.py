"""What becomes of jobs when their server is killed, paused, full, or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mesh.errors import NodeFailed, Overloaded, SetupError, Unavailable
from mesh.jobs.records import RUNS, Job, JobState, Progress
from mesh.jobs.store.connection import Connection
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.store.subjects import Subjects
from tests.harness.nats import Nats, free_port, nats_server, settings_of
from tests.unit.jobs.store_given import PATIENCE_S, again, ask, begun, large, opened, taken, tensors, work


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as started:
        yield started


async def test_no_job_that_was_acknowledged_is_lost_or_doubled_when_its_server_is_killed(server: Nats) -> None:
    async with opened(server, timeout_s=20.0) as store:
        acknowledged: dict[str, str] = {}
        done, enough = asyncio.Event(), asyncio.Event()
        wanted = 0

        async def submits(place: int) -> None:
            number = 0
            while not done.is_set():
                key = f"{place}-{number}" if place % 2 else ""
                try:
                    job, _ = await store.submit(work(request_id=f"{place}-{number}"), key=key)
                except Unavailable:
                    if key:
                        continue  # nobody knows: the same key asks again
                else:
                    acknowledged[job.id] = job.request_id
                    if len(acknowledged) >= wanted:
                        enough.set()
                number += 1

        submitting = [asyncio.create_task(submits(place)) for place in range(16)]
        for _ in range(3):
            wanted = len(acknowledged) + 100
            enough.clear()
            async with asyncio.timeout(PATIENCE_S):
                await enough.wait()
            server.kill()
            await asyncio.sleep(0.05)  # for those who submit to find that nobody is there
            server.start()
        done.set()
        await asyncio.gather(*submitting)

        found: dict[str, int] = {}
        while (await store.counts()).queued_bytes:
            for delivery in await store.take(RUNS, 64, 0.0):
                lease = await delivery.begin("w")
                assert lease is not None
                assert await lease.done()
                found[lease.job.id] = found.get(lease.job.id, 0) + 1
        assert acknowledged.keys() <= found.keys()
        assert set(found.values()) == {1}
        # Without a key nobody can ask again: those who were not told may be there.
        asked_by_key = [name for name in acknowledged.values() if int(name.partition("-")[0]) % 2]
        assert len(asked_by_key) == len(set(asked_by_key))


async def test_an_attempt_outlives_its_server(server: Nats) -> None:
    async with opened(server, timeout_s=20.0) as store, again(store) as other:
        job, _ = await store.submit(work(inputs=large()))
        lease = await begun(store)
        async with aclosing(other.follow(job.id)) as events:
            assert isinstance(await anext(events), Job)
            server.restart()
            assert await lease.extend()
            assert await lease.done(large())
            last = [event async for event in events][-1]
            assert isinstance(last, Job)
            assert (last.state, last.outputs) == (JobState.DONE, large())
        assert await other.take(RUNS, 1, 0.0) == []


async def test_one_who_waits_for_jobs_gets_those_of_a_server_that_came_back(server: Nats) -> None:
    async with opened(server, timeout_s=20.0) as store, again(store) as other:
        waiting = asyncio.create_task(taken(other))
        assert await store.take(RUNS, 1, 0.0) == []
        server.restart()
        job, _ = await store.submit(work())
        assert (await waiting).job.id == job.id


async def test_what_branches_give_is_kept_again_after_its_server_came_back(server: Nats) -> None:
    async with opened(server, timeout_s=20.0) as store:
        server.restart()
        name = Subjects(store.settings.graph).events
        for _ in range(1000):
            if "error" not in await ask(server, f"STREAM.INFO.{name}"):
                break
            await asyncio.sleep(0.01)
        job, _ = await store.submit(work())
        lease = await begun(store)
        lease.publish(Progress(1, "a", tensors()))
        async with aclosing(store.follow(job.id)) as events, asyncio.timeout(PATIENCE_S):
            assert isinstance(await anext(events), Job)
            assert await anext(events) == Progress(1, "a", tensors())


async def test_a_server_that_does_not_answer_is_unavailable_and_the_store_goes_on_when_it_does() -> None:
    with nats_server() as server:
        async with opened(server, timeout_s=0.5) as store:
            job, _ = await store.submit(work())
            lease = await begun(store)
            server.pause()
            for asked in (store.get(job.id), store.submit(work(), key="k"), store.ping(), lease.done(tensors())):
                with pytest.raises(Unavailable):
                    await asked
            server.resume()
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        # Whether the first word was heard nobody knew: said again, it is found to be ours.
                        assert await lease.done(tensors())
                        break
                    except Unavailable:
                        continue
            assert (await store.get(job.id)).outputs == tensors()


async def test_a_server_that_is_gone_is_unavailable_and_a_caller_that_leaves_leaves_nothing() -> None:
    with nats_server() as server:
        async with opened(server, timeout_s=0.5) as store:
            await store.ping()
            server.kill()
            with pytest.raises(Unavailable, match=str(server.port)):
                await store.submit(work())
            asked = asyncio.create_task(store.ping())
            await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        with pytest.raises(Unavailable, match="closed"):
            await store.ping()


async def test_a_store_that_is_full_says_so_and_goes_on_when_there_is_room(server: Nats) -> None:
    async with opened(server, max_queued_bytes=1 << 20) as store:
        found = await asyncio.gather(*(store.submit(work(2000)) for _ in range(100)), return_exceptions=True)
        assert {type(one) for one in found} == {tuple, Overloaded}
        while delivered := await store.take(RUNS, 64, 0.0):
            for delivery in delivered:
                lease = await delivery.begin("w")
                assert lease is not None
                assert await lease.fail(NodeFailed("no"))
        await store.submit(work(2000))


# Beginning.


async def test_a_server_without_jetstream_is_no_store() -> None:
    with TemporaryDirectory(prefix="nats-") as folder:
        plain = Nats(Path(folder), jetstream=False)
        plain.start()
        try:
            with pytest.raises(SetupError, match="has no JetStream"):
                await JobStore(settings_of(plain, timeout_s=1.0)).__aenter__()
        finally:
            plain.kill()


async def test_a_server_that_refuses_us_is_told_without_the_password() -> None:
    with nats_server("authorization {", 'user: "mesh"', 'password: "right"', "}") as server:
        async with opened(server, user="mesh", password="right") as store:
            await store.submit(work())
        with pytest.raises(SetupError, match="refuses us") as caught:
            await JobStore(settings_of(server, user="mesh", password="wrong-secret", timeout_s=2.0)).__aenter__()
        assert "wrong-secret" not in str(caught.value)
        assert "wrong-secret" not in repr(settings_of(server, password="wrong-secret"))
        assert str(server.port) in str(caught.value)


async def test_where_no_server_is_the_store_is_unavailable() -> None:
    with TemporaryDirectory(prefix="nats-") as folder:
        nobody = Nats(Path(folder), port=free_port())
        with pytest.raises(Unavailable, match=str(nobody.port)):
            await JobStore(settings_of(nobody, timeout_s=0.5)).__aenter__()


async def test_streams_that_cannot_be_made_ours_are_told_with_the_difference(server: Nats) -> None:
    settings = settings_of(server)
    subjects = Subjects(settings.graph)
    await ask(server, f"STREAM.CREATE.{subjects.work}", name=subjects.work, subjects=["other"], storage="memory")
    with pytest.raises(SetupError, match="storage is 'memory' where 'file' is needed") as caught:
        await JobStore(settings).__aenter__()
    assert subjects.work in str(caught.value)


async def test_streams_are_given_new_bounds(server: Nats) -> None:
    async with opened(server, max_queued=1) as store:
        await store.submit(work())
        with pytest.raises(Overloaded):
            await store.submit(work())
        async with opened(server, graph=store.settings.graph, max_queued=2, lease_s=7.0) as other:
            await other.submit(work())


async def test_a_server_that_cannot_keep_replicas_is_no_store(server: Nats) -> None:
    with pytest.raises(SetupError, match="replicas"):
        await JobStore(settings_of(server, replicas=3)).__aenter__()


async def test_a_server_that_has_not_the_room_says_what_would_be_set_aside(server: Nats) -> None:
    with pytest.raises(SetupError, match=f"{1 << 50} bytes aside"):
        await JobStore(settings_of(server, max_queued_bytes=1 << 50)).__aenter__()


# The connection.


async def test_a_client_that_gave_up_is_replaced_and_hears_what_it_listened_to(
    server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    connection = Connection(settings_of(server, timeout_s=20.0))
    await connection.open()
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    back = asyncio.Event()
    connection.on_connected.append(back.set)
    try:
        await connection.listen("told", lambda message: heard.put_nowait(message.data))
        info = await connection.request("$JS.API.INFO", timeout_s=PATIENCE_S)
        assert info.data
        client = connection._client  # pyright: ignore[reportPrivateUsage]
        assert client is not None
        await client.close()  # as it does itself when a server refuses it once
        async with asyncio.timeout(PATIENCE_S):
            await back.wait()
            await connection.publish("told", b"again")
            assert await heard.get() == b"again"
        await connection.request("$JS.API.INFO", timeout_s=PATIENCE_S)
    finally:
        await connection.close()
    assert "connected again" in caplog.text
