"""What the parts of a store share: records and work by id, payloads, ids, the time of day."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from blake3 import blake3
from google.protobuf.message import Message

from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, RequestError
from mesh.jobs.records import Conflict, Job, JobState, Lane, Work
from mesh.jobs.store.blobs import BlobStore
from mesh.jobs.store.codec import decode_inputs, decode_outputs, decode_work, job_of, parsed, queued
from mesh.jobs.store.disk import Disk
from mesh.jobs.store.ids import SECRET_BYTES, Ids
from mesh.jobs.store.jetstream import JetStream, Stored
from mesh.jobs.store.settings import StoreSettings
from mesh.jobs.store.subjects import Subjects
from mesh.v1.job_record_pb2 import StoredJob, StoredPayload, StoredWork

__all__ = ["BEYOND_S", "INLINE_BYTES", "Record", "Records", "Waiting", "shared_secret"]

log = logging.getLogger("mesh.jobs")

M = TypeVar("M", bound=Message)

INLINE_BYTES = 256 << 10
"""Payloads above this are kept beside the stream. A message of a server takes 1 MiB unless it is told otherwise."""
BEYOND_S = 86_400.0
"""How long a job's record, and its idempotency key, are kept once it is expired: see `mesh.jobs.store.streams`."""
_MESSAGE_SHARE = 4
"""A message has room for inline inputs, a task as large, a history of attempts, and headers."""
_TOTAL_S = 1.0
"""How old the sum of payloads may be that a new one is held against."""
_TASKS = 256
"""What runs on the side: more is dropped."""


@dataclass(frozen=True, slots=True)
class Record:
    """A job's record as it was read."""

    job: Job
    stored: StoredJob
    sequence: int
    token: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job's work as it was read."""

    stored: StoredWork
    sequence: int


class Records:
    """Reads and writes by id.

    Args:
        settings: The store's bounds.
        jetstream: How the server is reached.
        ids: Which ids are ours.
        blobs: Where large payloads are.
        wall: The time of day.
    """

    def __init__(
        self,
        settings: StoreSettings,
        jetstream: JetStream,
        ids: Ids,
        blobs: BlobStore,
        wall: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.subjects = Subjects(settings.graph)
        self.jetstream = jetstream
        self.ids = ids
        self.blobs = blobs
        self.wall = wall
        self.disk = Disk(settings.folder)
        self.inline_bytes = min(INLINE_BYTES, jetstream.connection.max_payload // _MESSAGE_SHARE)
        self._total = 0
        self._total_until = -1.0
        self._tasks: set[asyncio.Task[None]] = set()

    def lane_of(self, id: str) -> Lane:  # noqa: A002
        """The lane of a job.

        Raises:
            NotFound: This store never gave that id.
        """
        told = self.ids.parse(id)
        if told is None:
            raise NotFound("there is no job of that id")
        return told.lane

    # Records and work.

    async def record(self, lane: Lane, id: str) -> Record | None:  # noqa: A002
        """A job's record; None before its first attempt, and once it is gone."""
        stored = await self.jetstream.last(self.subjects.state, self.subjects.state_of(lane, id))
        return None if stored is None else self.read_record(id, lane, stored)

    def read_record(self, id: str, lane: Lane, stored: Stored) -> Record:  # noqa: A002
        """A record, out of a message.

        Raises:
            NodeFailed: It is none.
        """
        message = _read(StoredJob(), stored.data, id)
        try:
            return Record(job_of(id, lane, message), message, stored.sequence, stored.token)
        except InvalidInput as error:
            raise NodeFailed(f"the record of job {id} cannot be read: {error.text}") from None

    async def write_record(self, id: str, lane: Lane, message: StoredJob, *, expected: int, token: str = "") -> int:  # noqa: A002
        """Write a record over the one that was read; as `JetStream.write`."""
        ttl_s = None
        if message.HasField("expire_time"):
            ttl_s = max(0.0, message.expire_time - self.wall()) + BEYOND_S
        return await self.jetstream.write(
            self.subjects.state,
            self.subjects.state_of(lane, id),
            message.SerializeToString(),
            expected=expected,
            token=token,
            ttl_s=ttl_s,
        )

    async def waiting(self, lane: Lane, id: str) -> Waiting | None:  # noqa: A002
        """A job's work; None once it is over."""
        stored = await self.jetstream.last(self.subjects.work, self.subjects.work_of(lane, id))
        return None if stored is None else Waiting(_read(StoredWork(), stored.data, id), stored.sequence)

    async def look(self, id: str) -> tuple[Job, Record | None]:  # noqa: A002
        """A job as it stands, without its outputs, and its record.

        Raises:
            NotFound: This store never gave that id.
        """
        lane = self.lane_of(id)
        record = await self.record(lane, id)
        if record is None:
            waiting = await self.waiting(lane, id)
            if waiting is not None:
                return queued(id, lane, waiting.stored.head), None
            # It may have been taken, done and gone between the two.
            record = await self.record(lane, id)
        if record is None or self.is_expired(record.job):
            return self.expired(id, lane), None
        return record.job, record

    def is_expired(self, job: Job) -> bool:
        """Whether it is over and its time, too."""
        return job.expire_time is not None and job.expire_time <= self.wall()

    def expired(self, id: str, lane: Lane) -> Job:  # noqa: A002
        """A job of which nothing is known any more."""
        told = self.ids.parse(id)
        return Job(
            id=id,
            graph=self.settings.graph,
            state=JobState.EXPIRED,
            lane=lane,
            submit_time=0.0 if told is None else told.time,
        )

    async def with_outputs(self, record: Record) -> Job:
        """A job with its outputs, where it has any.

        Raises:
            NodeFailed: They are lost.
        """
        job = record.job
        if job.state is not JobState.DONE or not record.stored.HasField("outputs"):
            return job
        try:
            outputs, report = decode_outputs(await self.payload(record.stored.outputs))
        except (InvalidInput, NotFound) as error:
            raise NodeFailed(f"the result of job {job.id} cannot be read: {error.text}") from error
        return replace(job, outputs=outputs, report=report)

    async def work_of(self, lane: Lane, stored: StoredWork) -> Work:
        """What is to be done, with its inputs.

        Raises:
            InvalidInput, NotFound: They cannot be read, and never will be.
        """
        inputs = decode_inputs(await self.payload(stored.inputs)) if stored.HasField("inputs") else None
        return decode_work(stored, lane, inputs)

    # Payloads.

    async def keep_payload(self, name: str, raw: bytes) -> StoredPayload:
        """Keep a payload, inline or beside the stream.

        Raises:
            Overloaded: There is no room for it.
            Unavailable: It cannot be kept.
        """
        if len(raw) <= self.inline_bytes:
            return StoredPayload(inline=raw)
        await self.blobs.put(name, raw)
        digest = await asyncio.to_thread(lambda: blake3(raw).digest())
        return StoredPayload(name=name, size=len(raw), digest=digest)

    async def payload(self, stored: StoredPayload) -> bytes:
        """A payload.

        Raises:
            NotFound: It is not there.
            InvalidInput: It is not what was kept.
            Unavailable: It cannot be read now.
        """
        if not stored.name:
            return stored.inline
        raw = await self.blobs.get(stored.name)
        if await asyncio.to_thread(lambda: blake3(raw).digest()) != stored.digest:
            raise InvalidInput("the payload is not the one that was kept")
        return raw

    async def check_room(self, size: int) -> None:
        """Hold an input against the bytes of all inputs beside the stream, as they were at most a second ago.

        Raises:
            Overloaded: There is no room for it.
        """
        if size <= self.inline_bytes:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._total_until:
            self._total_until = now + _TOTAL_S
            self._total = await self.blobs.total()
        if self._total + size > self.settings.max_queued_bytes:
            text = f"payloads of {self._total} bytes wait where {self.settings.max_queued_bytes} may"
            raise Overloaded(text, retry_after_s=_TOTAL_S)
        self._total += size

    # What nobody waits for.

    def spawn(self, work: Coroutine[Any, Any, object], what: str) -> bool:
        """Run something on the side, whose failure harms nobody; false where too much runs already."""
        if len(self._tasks) >= _TASKS:
            work.close()
            return False

        async def run() -> None:
            try:
                await work
            except RequestError as error:
                log.debug("%s: %s", what, error)

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def finished(self, timeout_s: float) -> None:
        """Wait for what runs on the side, and end what takes longer."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _read(message: M, raw: bytes, id: str) -> M:  # noqa: A002
    try:
        return parsed(message, raw)
    except InvalidInput as error:
        raise NodeFailed(f"what is stored of job {id} cannot be read: {error.text}") from None


async def shared_secret(jetstream: JetStream, subjects: Subjects, fresh: Callable[[], bytes]) -> bytes:
    """What ids are checked by: made by whoever comes first.

    Raises:
        NodeFailed: What is stored is none.
        Unavailable: The server does not answer in time.
    """
    stored = await jetstream.last(subjects.state, subjects.secret)
    if stored is None:
        try:
            secret = fresh()
            await jetstream.write(subjects.state, subjects.secret, secret, expected=0)
            return secret
        except Conflict:
            stored = await jetstream.last(subjects.state, subjects.secret)
    if stored is None or len(stored.data) != SECRET_BYTES:
        raise NodeFailed("the secret of the store cannot be read")
    return stored.data
