"""`JobStore`: jobs on NATS JetStream, where acknowledged means on disk.

What is stored where, and which crash leaves what, is told in `mesh.jobs.store.streams`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from types import TracebackType

from mesh.errors import MeshError, Unavailable
from mesh.jobs.records import RUNS, Counts, Job, JobState, Lane, Page, Progress, Work
from mesh.jobs.store.blobs import open_blobs
from mesh.jobs.store.connection import Connection
from mesh.jobs.store.counting import count
from mesh.jobs.store.deliveries import Delivery, Taking
from mesh.jobs.store.documents import Documents
from mesh.jobs.store.endings import Endings
from mesh.jobs.store.following import Following
from mesh.jobs.store.ids import SECRET_BYTES, Ids
from mesh.jobs.store.jetstream import JetStream
from mesh.jobs.store.lease import Lease
from mesh.jobs.store.listing import Listing
from mesh.jobs.store.notices import Notice, Notices
from mesh.jobs.store.settings import StoreSettings
from mesh.jobs.store.stored import Records, shared_secret
from mesh.jobs.store.streams import check_server, ensure_events, ensure_streams
from mesh.jobs.store.subjects import Subjects
from mesh.jobs.store.submitting import Submissions
from mesh.jobs.store.sweeping import Sweeper

__all__ = ["Delivery", "JobStore", "Lease", "Notice"]

log = logging.getLogger("mesh.jobs")

_CLOSE_S = 2.0


class _Open:
    """The parts of a store that is connected."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.endings = Endings(records)
        self.submissions = Submissions(records)
        self.listing = Listing(records)
        self.following = Following(records)
        self.taking = Taking(records, self.endings)
        self.notices = Notices(records)
        self.documents = Documents(records)
        self.sweeper = Sweeper(records, self.endings)


class JobStore:
    """The jobs of one graph. An async context manager: connects when entered.

    All methods may raise `Unavailable` (the store cannot be reached, or did not answer in `timeout_s`: nobody knows
    whether what was asked was done) and `Overloaded` (a bound was reached, here or at the server: nothing was done).

    Args:
        settings: Where it is, and its bounds.
        wall: The time of day, in seconds since 1970-01-01 UTC.
    """

    def __init__(self, settings: StoreSettings, wall: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._wall = wall
        self._open: _Open | None = None

    async def __aenter__(self) -> JobStore:
        """Connect; make the streams, or see that they are as they should be.

        Raises:
            Unavailable: No server answers, or not in `timeout_s`.
            SetupError: The server is too old, has no JetStream or refuses us; or streams of this name are there and
                cannot be made what they should be. nats-py is not installed.
        """
        settings = self.settings
        subjects = Subjects(settings.graph)
        blobs = open_blobs(settings.graph, settings.folder, settings.payloads)
        connection = Connection(settings)
        await connection.open()
        try:
            jetstream = JetStream(connection, settings.timeout_s, leader=settings.replicas > 1)
            await check_server(jetstream)
            await ensure_streams(jetstream, settings, subjects)
            secret = await shared_secret(jetstream, subjects, lambda: os.urandom(SECRET_BYTES))
        except BaseException:
            await connection.close()
            raise
        records = Records(settings, jetstream, Ids(secret), blobs, self._wall)
        connection.on_connected.append(lambda: _connected(records))
        self._open = _Open(records)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            await opened.submissions.close()
            await opened.taking.close()
            await opened.notices.close()
            await opened.records.finished(_CLOSE_S)
            await opened.records.jetstream.connection.close()

    @property
    def _now(self) -> _Open:
        if self._open is None:
            raise Unavailable("the store is closed")
        return self._open

    async def ping(self) -> None:
        """See that the store answers.

        Raises:
            Unavailable: It does not.
        """
        await self._now.records.jetstream.ask("INFO")

    # Those who submit.

    async def submit(self, work: Work, *, key: str = "") -> tuple[Job, bool]:
        """Store a job.

        Args:
            work: What to do.
            key: Makes it safe to ask again: the same key gives the same job for as long as its job is known, and at
                least for a day after it is over. At most 256 characters; empty for none.

        Returns:
            The job, which is on disk now, and whether it had been there already under this key.

        Raises:
            InvalidInput: The key was given with other work; or the payload or key is too large.
            Overloaded: As many jobs or bytes wait as may.
            Unavailable: Nobody knows whether it is stored. With a key, asking again does no harm.
        """
        return await self._now.submissions.submit(work, key)

    async def get(self, id: str, *, outputs: bool = True) -> Job:  # noqa: A002 - what everybody calls it
        """A job as it stands, with its outputs where it is done and they are asked for.

        Raises:
            NotFound: This store never gave that id.
        """
        records = self._now.records
        job, record = await records.look(id)
        return job if record is None or not outputs else await records.with_outputs(record)

    async def list(
        self,
        states: Collection[JobState] = (),
        size: int = 100,
        token: str = "",
        lanes: Collection[Lane] = RUNS,
    ) -> Page:
        """Jobs, page by page: first those that wait or run, then those that are over, each in the order in which they
        came to be so. Looks at a bounded number of jobs and bytes a call.

        Args:
            states: Only those; all where empty.
            size: Most jobs of the page, 1 to 1000.
            token: `next_token` of the page before; empty for the first.
            lanes: Only those.

        Raises:
            InvalidInput: The token is none, or comes from another list; a size out of bounds.
        """
        return await self._now.listing.page(states, size, token, lanes)

    def follow(self, id: str) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        """A job as it stands, then each change and what its branches give, until it is over. Close it (`aclosing`)
        when leaving early.

        What branches of the running attempt gave before is told as well. The last that comes is a job that is `over`,
        with its outputs.

        Raises:
            NotFound: This store never gave that id.
            Overloaded: As many jobs are followed as may.
        """
        return self._now.following.follow(id)

    async def cancel(self, id: str) -> Job:  # noqa: A002
        """End a job that is not over, and tell its worker.

        Returns:
            The job: CANCELLED, or what it had ended in before.

        Raises:
            NotFound: This store never gave that id.
        """
        return await self._now.endings.cancel(id)

    async def replay(self, id: str) -> Job:  # noqa: A002
        """Submit a job of the dead letter again, under a new id, and take it from there. Asked twice, it answers twice
        with the same job. Where it had a deadline, the new one has as long as the old one had.

        Raises:
            NotFound: This store never gave that id, or the dead letter has it no more.
            InvalidInput: It did not fail.
        """
        return await self._now.submissions.replay(id)

    # Those who work.

    async def take(self, lanes: Sequence[Lane], room: int, wait_s: float = 1.0) -> list[Delivery]:
        """Jobs to work on: those of the first lane before those of the second, and so on.

        Callers take turns. What is not begun goes to somebody else after the lease; `refuse` gives it back at once.

        Args:
            lanes: Which, in their order.
            room: Most jobs.
            wait_s: How long to wait where there is none.

        Returns:
            None to `room` of them.
        """
        return await self._now.taking.take(lanes, room, wait_s)

    async def take_notices(self, room: int, wait_s: float = 1.0) -> list[Notice]:
        """Callbacks that are due. Each is given to one caller at a time, for at least a minute."""
        return await self._now.notices.take(room, wait_s)

    async def sweep(self) -> int:
        """Remove what crashes left behind: payloads that no job refers to, keys that were claimed and never used. To be
        called now and then by each job worker; looks at a bounded number.

        Returns:
            How much was removed.
        """
        return await self._now.sweeper.sweep()

    async def counts(self) -> Counts:
        """What is in the store."""
        return await count(self._now.records)

    # Small documents, for the coordinator and the schedules.

    async def keep(self, key: str, data: bytes, expected: int | None = None) -> int:
        """Keep a document, in place of what was there.

        Args:
            key: 1 to 200 of `a-z A-Z 0-9 _ - .`, with no dot at either end and no two together.
            data: At most 256 KiB.
            expected: The revision that it replaces; 0 where none may be there; None for whatever is there.

        Returns:
            Its revision.

        Raises:
            Conflict: Another revision is there.
            InvalidInput: The key or the data are not as said.
        """
        return await self._now.documents.keep(key, data, expected)

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """A document and its revision; None where there is none."""
        return await self._now.documents.read(key)

    async def forget(self, key: str, expected: int | None = None) -> None:
        """Remove a document, if it is there still.

        Raises:
            Conflict: Another revision than the expected one is there.
        """
        await self._now.documents.forget(key, expected)

    async def keys(self, prefix: str = "") -> list[str]:
        """The keys of documents below `prefix` (`a.b` is below `a`), sorted. At most 10,000."""
        return await self._now.documents.keys(prefix)


def _connected(records: Records) -> None:
    """The server may be another one by now, and what it had in memory is gone."""
    records.spawn(_restored(records), "making the stream of events again")


async def _restored(records: Records) -> None:
    try:
        await ensure_events(records.jetstream, records.subjects)
    except MeshError as error:
        log.warning("what branches give is not kept for those who come late: %s", error)
