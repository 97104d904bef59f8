"""`JobStore`: jobs on NATS JetStream, where acknowledged means on disk.

What is stored where, and which crash leaves what, is told in `mesh.jobs.streams`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from types import TracebackType

from mesh.errors import RequestError
from mesh.jobs.records import RUNS, Callback, Counts, Job, JobState, Lane, Page, Progress, Work
from mesh.jobs.store_settings import StoreSettings
from mesh.tensors import Tensors
from mesh.v1.call_pb2 import CallReport

__all__ = ["Delivery", "JobStore", "Lease", "Notice"]


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

    async def __aenter__(self) -> JobStore:
        """Connect; make the streams, or see that they are as they should be.

        Raises:
            Unavailable: No server answers, or not in `timeout_s`.
            SetupError: The server is too old, has no JetStream or refuses us; or streams of this name are there and
                cannot be made what they should be. nats-py is not installed.
        """
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def ping(self) -> None:
        """See that the store answers.

        Raises:
            Unavailable: It does not.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    async def get(self, id: str, *, outputs: bool = True) -> Job:  # noqa: A002 - what everybody calls it
        """A job as it stands, with its outputs where it is done and they are asked for.

        Raises:
            NotFound: This store never gave that id.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    def follow(self, id: str) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        """A job as it stands, then each change and what its branches give, until it is over. Close it (`aclosing`)
        when leaving early.

        What branches of the running attempt gave before is told as well. The last that comes is a job that is `over`,
        with its outputs.

        Raises:
            NotFound: This store never gave that id.
            Overloaded: As many jobs are followed as may.
        """
        raise NotImplementedError

    async def cancel(self, id: str) -> Job:  # noqa: A002
        """End a job that is not over, and tell its worker.

        Returns:
            The job: CANCELLED, or what it had ended in before.

        Raises:
            NotFound: This store never gave that id.
        """
        raise NotImplementedError

    async def replay(self, id: str) -> Job:  # noqa: A002
        """Submit a job of the dead letter again, under a new id, and take it from there. Asked twice, it answers twice
        with the same job. Where it had a deadline, the new one has as long as the old one had.

        Raises:
            NotFound: This store never gave that id, or the dead letter has it no more.
            InvalidInput: It did not fail.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    async def take_notices(self, room: int, wait_s: float = 1.0) -> list[Notice]:
        """Callbacks that are due. Each is given to one caller at a time, for at least a minute."""
        raise NotImplementedError

    async def sweep(self) -> int:
        """Remove what crashes left behind: payloads that no job refers to, keys that were claimed and never used. To be
        called now and then by each job worker; looks at a bounded number.

        Returns:
            How much was removed.
        """
        raise NotImplementedError

    async def counts(self) -> Counts:
        """What is in the store."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """A document and its revision; None where there is none."""
        raise NotImplementedError

    async def forget(self, key: str, expected: int | None = None) -> None:
        """Remove a document, if it is there still.

        Raises:
            Conflict: Another revision than the expected one is there.
        """
        raise NotImplementedError

    async def keys(self, prefix: str = "") -> list[str]:
        """The keys of documents below `prefix` (`a.b` is below `a`), sorted. At most 10,000."""
        raise NotImplementedError


class Delivery:
    """A job that was given to this worker, and is not begun."""

    work: Work
    """What to do, inputs included."""
    job: Job
    """As it stands, as far as is known before `begin`."""

    @property
    def lane(self) -> Lane:
        """Where it waited."""
        raise NotImplementedError

    async def begin(self, worker: str) -> Lease | None:
        """Begin an attempt.

        Args:
            worker: The worker's name, and its process.

        Returns:
            None where there is nothing to do: somebody has it, it is not due, it is over, or it was ended just now
            because its deadline has passed or its attempts are used up. Whatever is to follow from that was done.
        """
        raise NotImplementedError

    async def refuse(self) -> None:
        """Give it back, for others to take at once."""
        raise NotImplementedError


class Lease:
    """An attempt that is under way, and this worker's alone for as long as it says so every `lease_s / 3`.

    What ends it (`done`, `retry`, `fail`, `release`) is asked once; each answers whether it was accepted. False:
    somebody cancelled the job or has taken it over, and another's word stands.
    """

    work: Work
    job: Job
    """As it stood when the attempt began: RUNNING."""
    cancelled: asyncio.Event
    """Set when there is no use in going on: the job was cancelled, or another worker has it."""

    @property
    def number(self) -> int:
        """Of the attempt, from 1."""
        raise NotImplementedError

    @property
    def last(self) -> bool:
        """Whether no attempt may follow."""
        raise NotImplementedError

    async def extend(self) -> bool:
        """Say that it is being worked on. To be called every `lease_s / 3`.

        Returns:
            False where it is lost; then `cancelled` is set.
        """
        raise NotImplementedError

    def publish(self, progress: Progress) -> None:
        """Tell those who follow what a branch gave. Never waits, and may be lost."""
        raise NotImplementedError

    async def done(
        self, outputs: Tensors | None = None, report: CallReport | None = None, *, outcome: bytes = b""
    ) -> bool:
        """End the job with its result.

        Raises:
            InvalidInput: The outputs are larger than `max_payload_bytes`, or the outcome larger than 64 KiB: nothing
                is stored, and the lease goes on.
        """
        raise NotImplementedError

    async def retry(self, error: RequestError, delay_s: float) -> bool:
        """End the attempt, and let another follow after `delay_s`. Where it was the last: as `fail`."""
        raise NotImplementedError

    async def fail(self, error: RequestError) -> bool:
        """End the job with an error, and put it into the dead letter."""
        raise NotImplementedError

    async def release(self) -> bool:
        """Give the job back untouched, for others to take at once, without an attempt. For workers that drain."""
        raise NotImplementedError


class Notice:
    """A callback that is due."""

    job: Job
    """The job as it ended, without outputs."""
    callback: Callback
    number: int
    """Which try this is, from 1."""
    first_time: float
    """When the job was over."""

    async def told(self) -> None:
        """It was heard: nothing more is to be done."""
        raise NotImplementedError

    async def again(self, delay_s: float) -> None:
        """Try again after `delay_s`."""
        raise NotImplementedError

    async def give_up(self, error: RequestError) -> None:
        """Put it into the dead letter and be done with it."""
        raise NotImplementedError
