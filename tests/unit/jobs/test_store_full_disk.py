"""A disk that is full: what comes is refused, what was acknowledged is kept, and done once there is room again."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.jobs.records import JobState
from mesh.jobs.store.job_store import JobStore
from tests.harness.disk import small_disk
from tests.harness.nats import Nats, settings_of
from tests.unit.jobs.loaded import Callers, work, working

DISK = 16 << 20
LEFT = 3 << 20
"""What of the disk is left for the store, to begin with."""
ROWS = 1000
"""Of a job that takes some room: 16 kB."""
MOST = 2000
"""Far more jobs than there is room for."""


async def filled(store: JobStore) -> tuple[dict[int, str], RequestError]:
    """Submit jobs until one is refused: those that were acknowledged, and what the next one was told."""
    ids: dict[int, str] = {}
    for number in range(MOST):
        try:
            job, _ = await store.submit(work(number, ROWS))
        except RequestError as error:
            return ids, error
        ids[number] = job.id
    raise AssertionError(f"there was room for {MOST} jobs")


async def finished(store: JobStore, ids: dict[int, str]) -> None:
    """Have all of them worked on, and see that each is done, and that there are no others."""
    callers = Callers(store, 0)
    callers.ids = ids
    async with working(store):
        await callers.all_done()
    assert not (await store.list((JobState.QUEUED, JobState.RUNNING, JobState.FAILED))).jobs


async def test_what_was_acknowledged_before_the_disk_was_full_is_done_when_it_is_not(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK) as disk:
        server = Nats(disk.folder / "nats")
        server.start()
        try:
            settings = settings_of(server, timeout_s=1.0, max_queued_bytes=8 << 20, dead_max_bytes=1 << 20, lease_s=1.0)
            async with JobStore(settings) as store:
                disk.fill(LEFT)
                ids, refused = await filled(store)
                assert isinstance(refused, Unavailable | Overloaded)
                assert len(ids) > 10
                # It can be looked at, full as it is.
                assert {(await store.get(name)).state for name in ids.values()} == {JobState.QUEUED}
                disk.free()
                # Such a server does not write again until it is started again: see `mesh.jobs.server.room`.
                server.restart()
                await finished(store, ids)
        finally:
            server.kill()


@pytest.fixture
def server_of(tmp_path: Path) -> Generator[Callable[[str], Nats]]:
    """A server that may store so much; asked again, it is started again with another bound."""
    running: list[Nats] = []

    def bounded(most: str) -> Nats:
        store = [
            "jetstream {",
            f'store_dir: "{tmp_path / "store"}"',
            f"max_file_store: {most}",
            "sync_interval: always",
        ]
        port = 0
        while running:
            before = running.pop()
            before.kill()
            port = before.port
        running.append(Nats(tmp_path / "nats", *store, "}", port=port, jetstream=False))
        running[-1].start()
        return running[-1]

    yield bounded
    for server in running:
        server.kill()


async def test_what_a_worker_has_when_the_server_has_no_room_is_done_once_it_has(
    server_of: Callable[[str], Nats],
) -> None:
    server = server_of("6MB")
    settings = settings_of(server, timeout_s=2.0, max_queued_bytes=2 << 20, dead_max_bytes=1 << 20, lease_s=1.0)
    async with JobStore(settings) as store, JobStore(settings) as taking, working(taking):
        # Results take the room, with the worker at work on what was acknowledged.
        ids, refused = await filled(store)
        assert isinstance(refused, Overloaded)
        assert refused.retry_after_s > 0
        assert len(ids) > 10
        server_of("64MB")
        callers = Callers(store, 0)
        callers.ids = ids
        await callers.all_done()
