"""`Lease`: an attempt that is under way; each of its words is compared with the one before it, and set."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.errors import InvalidInput, RequestError, Unavailable
from mesh.jobs.records import Conflict, Job, JobState, Progress, Work
from mesh.jobs.store.codec import encode_outputs, encode_progress, stored_job
from mesh.jobs.store.endings import RACES, Endings
from mesh.jobs.store.next_step import attempts_of, over, put_off, untouched
from mesh.jobs.store.stored import Records
from mesh.tensors import Tensors
from mesh.v1.call_pb2 import CallReport
from mesh.v1.job_record_pb2 import StoredHead, StoredJob, StoredPayload, StoredWork

__all__ = ["MAX_OUTCOME_BYTES", "Lease"]

log = logging.getLogger("mesh.jobs")

MAX_OUTCOME_BYTES = 64 << 10


class Lease:
    """An attempt that is under way, and this worker's alone for as long as it says so every `lease_s / 3`.

    What ends it (`done`, `retry`, `fail`, `release`) answers whether it was accepted. False: somebody cancelled the job
    or has taken it over, and another's word stands. Where it raises `Unavailable` or `Overloaded`, nobody knows, and it
    may be asked again: what was accepted meanwhile is found to be ours.

    Args:
        records: What is shared.
        endings: What follows from an end.
        reply: Where the delivery of its work is answered.
        stored: What was to be done, as it is kept.
        work: The same, to be worked on.
        job: The job as it is now: RUNNING.
        sequence: That of its record.
        token: What this attempt's words are known by.
        over: Called when it is at its end.
    """

    def __init__(
        self,
        records: Records,
        endings: Endings,
        *,
        reply: str,
        stored: StoredWork,
        work: Work,
        job: Job,
        sequence: int,
        token: str,
        over: Callable[[Lease], None],
    ) -> None:
        self.work = work
        self.job = job
        """As it stood when the attempt began: RUNNING."""
        self.cancelled = asyncio.Event()
        """Set when there is no use in going on: the job was cancelled, or another worker has it."""
        self._records = records
        self._endings = endings
        self._reply = reply
        self._stored = stored
        self._sequence = sequence
        self._token = token
        self._words = 0
        self._told = 0
        self._over = over
        self._turn = asyncio.Lock()
        self._ended: bool | None = None
        """What it ended in: whether that was accepted."""

    @property
    def number(self) -> int:
        """Of the attempt, from 1."""
        return self.job.attempt_count

    @property
    def last(self) -> bool:
        """Whether no attempt may follow."""
        return self.number >= attempts_of(self.job.lane, self._records.settings.attempts)

    async def extend(self) -> bool:
        """Say that it is being worked on. To be called every `lease_s / 3`.

        Returns:
            False where it is lost; then `cancelled` is set.

        Raises:
            Unavailable: The store does not answer: the lease may be over before it does.
        """
        async with self._turn:
            if self._ended is not None:
                return False
            if not await self._say(running(self._stored.head, self.job, self._records)):
                return False
            await self._records.jetstream.hold(self._reply)
            return True

    def publish(self, progress: Progress) -> None:
        """Tell those who follow what a branch gave. Never waits, and may be lost."""
        records = self._records
        self._told += 1
        try:
            raw = encode_progress(progress, self._told)
        except InvalidInput as error:
            log.debug("job %s: %s cannot be told: %s", self.job.id, progress.node, error)
            return
        # As large as a message may be, with room for its headers.
        if len(raw) <= records.jetstream.connection.max_payload - 4096:
            subject, headers = records.subjects.events_of(self.job.id), {"Mesh-Token": self._token}
            records.spawn(records.jetstream.connection.publish(subject, raw, headers), "telling of a branch")

    async def done(
        self, outputs: Tensors | None = None, report: CallReport | None = None, *, outcome: bytes = b""
    ) -> bool:
        """End the job with its result.

        Raises:
            InvalidInput: The outputs are larger than `max_payload_bytes`, or the outcome larger than 64 KiB: nothing is
                stored, and the lease goes on.
        """
        if outputs is not None:
            outputs.check_size(self._records.settings.max_payload_bytes, "gives")
        if len(outcome) > MAX_OUTCOME_BYTES:
            raise InvalidInput(f"an outcome of {len(outcome)} bytes, where {MAX_OUTCOME_BYTES} are kept")
        async with self._turn:
            if self._ended is not None:
                return self._ended
            payload: StoredPayload | None = None
            if outputs is not None:
                name = f"outputs/{self.job.id}.{self._token}"
                payload = await self._records.keep_payload(name, encode_outputs(outputs, report))
            job = over(self.job, JobState.DONE, self._records.wall(), self._records.settings)
            message = stored_job(self._stored.head, job)
            message.outcome = outcome
            message.told = self._told
            if payload is not None:
                message.outputs.CopyFrom(payload)
            accepted = await self._end(message)
            if not accepted and payload is not None and payload.name:
                self._records.spawn(self._records.blobs.remove(payload.name), "removing a refused result")
            return accepted

    async def retry(self, error: RequestError, delay_s: float) -> bool:
        """End the attempt, and let another follow after `delay_s`. Where it was the last: as `fail`."""
        if self.last:
            return await self.fail(error)
        async with self._turn:
            if self._ended is not None:
                return self._ended
            job = put_off(self.job, error, self._records.wall(), delay_s)
            return await self._hand_back(stored_job(self._stored.head, job), delay_s)

    async def fail(self, error: RequestError) -> bool:
        """End the job with an error, and put it into the dead letter."""
        async with self._turn:
            if self._ended is not None:
                return self._ended
            job = over(self.job, JobState.FAILED, self._records.wall(), self._records.settings, error)
            message = stored_job(self._stored.head, job)
            message.told = self._told
            return await self._end(message)

    async def release(self) -> bool:
        """Give the job back untouched, for others to take at once, without an attempt. For workers that drain."""
        async with self._turn:
            if self._ended is not None:
                return self._ended
            return await self._hand_back(stored_job(self._stored.head, untouched(self.job)), 0.0)

    async def _hand_back(self, message: StoredJob, delay_s: float) -> bool:
        if not await self._say(message):
            return False
        self._finish(True)
        try:
            await self._records.jetstream.give_back(self._reply, delay_s)
        except RequestError as error:
            log.debug("job %s is left to its lease: %s", self.job.id, error)
        return True

    async def _end(self, message: StoredJob) -> bool:
        if not await self._say(message):
            return False
        self._finish(True)
        try:
            await self._endings.follow_up(self.job.id, message, self._stored)
            await self._records.jetstream.settle(self._reply)
            await self._endings.clear(self._stored, message)
        except RequestError as error:
            # The end stands: whoever is delivered the work again does the rest.
            log.debug("job %s is over, and what follows is left to the next delivery: %s", self.job.id, error)
        return True

    async def _say(self, message: StoredJob) -> bool:
        """Write a word over one's own last one; false where another's is there."""
        records, job = self._records, self.job
        self._words += 1
        token = f"{self._token}.{self._words}"
        for _ in range(RACES):
            try:
                self._sequence = await records.write_record(
                    job.id, job.lane, message, expected=self._sequence, token=token
                )
                return True
            except Conflict:
                record = await records.record(job.lane, job.id)
            if record is None or record.token.partition(".")[0] != self._token:
                break
            # Ours, of which nobody knew whether it was stored.
            self._sequence = record.sequence
            if record.stored.state == message.state and record.job.state is not JobState.RUNNING:
                return True
            if record.job.state is not JobState.RUNNING:
                break
        else:
            raise Unavailable(f"job {job.id} changes all the time", retry_after_s=1.0)
        self.cancelled.set()
        self._finish(False)
        return False

    def _finish(self, accepted: bool) -> None:
        self._ended = accepted
        self._over(self)


def running(head: StoredHead, job: Job, records: Records) -> StoredJob:
    """The record of an attempt that goes on for a lease from now."""
    message = stored_job(head, job)
    message.lease_time = records.wall() + records.settings.lease_s
    return message
