"""Jobs to work on: taken in the order of their lanes, begun where there is something to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from mesh.errors import InvalidInput, NodeFailed, NotFound, RequestError, Unavailable
from mesh.jobs.records import Conflict, Job, JobState, Lane, Work
from mesh.jobs.store.codec import parsed, queued, stored_job
from mesh.jobs.store.connection import Incoming, Listening
from mesh.jobs.store.endings import RACES, Endings
from mesh.jobs.store.jetstream import new_token
from mesh.jobs.store.lease import Lease, running
from mesh.jobs.store.next_step import Attempted, Ended, NotYet, next_step, over
from mesh.jobs.store.stored import Record, Records
from mesh.jobs.work.pulling import Puller
from mesh.v1.job_record_pb2 import StoredJob, StoredWork

__all__ = ["Delivery", "Taking"]

log = logging.getLogger("mesh.jobs")

_AGAIN_S = 5.0
"""After which a job is delivered again whose payload could not be read just now."""
_FULL_S = 1.0
"""The least that one waits who would begin jobs on a full disk."""
_DELIVERED = 4
"""In `$JS.ACK.<stream>.<consumer>.<delivered>.…`, and from the end where a domain stands before the stream."""


class Taking:
    """Who takes jobs.

    Args:
        records: What is shared.
        endings: What follows from an end.
    """

    def __init__(self, records: Records, endings: Endings) -> None:
        self._records = records
        self._endings = endings
        consumers = {lane: lane.name.lower() for lane in Lane}
        self._puller = Puller(
            records.jetstream, records.subjects.work, consumers, min(2.5, records.settings.timeout_s / 2)
        )
        self._leases: dict[str, Lease] = {}
        self._listening: Listening | None = None

    async def take(self, lanes: Sequence[Lane], room: int, wait_s: float) -> list[Delivery]:
        """See `JobStore.take`."""
        if room < 1:
            return []
        if self._listening is None:
            self._listening = await self._records.jetstream.connection.listen(
                self._records.subjects.cancel_of(), self._cancelled
            )
        if not self._records.disk.may_begin():
            log.warning("the disk of the store is nearly full: no job is begun")
            await asyncio.sleep(max(wait_s, _FULL_S))
            return []
        taken = await self._puller.take(lanes, room, wait_s)
        try:
            found = await asyncio.gather(*(self._delivery(lane, message) for lane, message in taken))
        except BaseException:
            for _, message in taken:
                self._records.spawn(self._records.jetstream.give_back(message.reply), "handing a job back")
            raise
        return [delivery for delivery in found if delivery is not None]

    async def close(self) -> None:
        """Be done with it."""
        await self._puller.close()

    def _cancelled(self, message: Incoming) -> None:
        lease = self._leases.get(message.subject.rpartition(".")[2])
        if lease is not None:
            lease.cancelled.set()

    async def _delivery(self, lane: Lane, message: Incoming) -> Delivery | None:
        """None where it cannot be worked on now."""
        records = self._records
        id = message.subject.rpartition(".")[2]  # noqa: A001
        stored, broken = StoredWork(), None
        work = Work(lane=lane)
        try:
            parsed(stored, message.data)
            work = await records.work_of(lane, stored)
        except (InvalidInput, NotFound) as error:
            log.error("job %s cannot be read: %s", id, error)
            broken = NodeFailed(f"what was to be done cannot be read: {error.text}")
        except RequestError as error:
            log.warning("job %s cannot be read now: %s", id, error)
            records.spawn(records.jetstream.give_back(message.reply, _AGAIN_S), "handing a job back")
            return None
        return Delivery(self, self._records, self._endings, lane, id, message, stored, work, broken)

    def began(self, lease: Lease) -> None:
        """Somebody works on it: let it be told when it is cancelled."""
        self._leases[lease.job.id] = lease

    def ended(self, lease: Lease) -> None:
        """Nobody does any more."""
        if self._leases.get(lease.job.id) is lease:
            del self._leases[lease.job.id]


class Delivery:
    """A job that was given to this worker, and is not begun. Made by `Taking`."""

    def __init__(
        self,
        taking: Taking,
        records: Records,
        endings: Endings,
        lane: Lane,
        id: str,  # noqa: A002
        message: Incoming,
        stored: StoredWork,
        work: Work,
        broken: RequestError | None,
    ) -> None:
        self.lane = lane
        """Where it waited."""
        self.work = work
        """What to do, inputs included."""
        self.job: Job = queued(id, lane, stored.head)
        """As it stands, as far as is known before `begin`."""
        self._taking = taking
        self._records = records
        self._endings = endings
        self._reply = message.reply
        self._stored = stored
        self._broken = broken
        self._received = asyncio.get_running_loop().time()

    async def begin(self, worker: str) -> Lease | None:
        """Begin an attempt.

        Args:
            worker: The worker's name, and its process.

        Returns:
            None where there is nothing to do: somebody has it, it is not due, it is over, or it was ended just now
            because its deadline has passed or its attempts are used up. Whatever is to follow from that was done.

        Raises:
            Unavailable, Overloaded: The store does not answer, or takes nothing: it is left to its lease.
        """
        records = self._records
        # The first delivery of most jobs is the only one: whether it is, the server says when the attempt is written.
        record = None if self._is_first() else await self._read()
        for _ in range(RACES):
            lease_time = None
            if record is not None and record.stored.HasField("lease_time"):
                lease_time = record.stored.lease_time
            step = next_step(self.job, lease_time, worker, records.wall(), records.settings)
            if self._broken is not None and isinstance(step, Attempted):
                step = Ended(over(self.job, JobState.FAILED, records.wall(), records.settings, self._broken))
            try:
                match step:
                    case Attempted():
                        return await self._begun(step.job, record)
                    case Ended():
                        return await self._ended(step.job, record)
                    case NotYet():
                        await records.jetstream.give_back(self._reply, step.delay_s)
                        return None
                    case _:
                        assert record is not None
                        await self._finish(record.stored)
                        return None
            except Conflict:
                record = await self._read()
        raise Unavailable(f"job {self.job.id} changes all the time", retry_after_s=1.0)

    async def refuse(self) -> None:
        """Give it back, for others to take at once."""
        await self._records.jetstream.give_back(self._reply)

    def _is_first(self) -> bool:
        tokens = self._reply.split(".")
        return len(tokens) == 9 and tokens[_DELIVERED] == "1"

    async def _read(self) -> Record | None:
        record = await self._records.record(self.lane, self.job.id)
        self.job = queued(self.job.id, self.lane, self._stored.head) if record is None else record.job
        return record

    async def _begun(self, job: Job, record: Record | None) -> Lease | None:
        records, token = self._records, new_token()
        message = running(self._stored.head, job, records)
        expected = 0 if record is None else record.sequence
        sequence = await records.write_record(job.id, self.lane, message, expected=expected, token=f"{token}.0")
        late = asyncio.get_running_loop().time() - self._received > records.settings.lease_s
        # Late enough for another to have done it, and for that to be forgotten: then its work is gone.
        if expected == 0 and late and await records.waiting(self.lane, job.id) is None:
            await records.jetstream.remove(records.subjects.state, sequence)
            return None
        lease = Lease(
            records,
            self._endings,
            reply=self._reply,
            stored=self._stored,
            work=self.work,
            job=job,
            sequence=sequence,
            token=token,
            over=self._taking.ended,
        )
        self._taking.began(lease)
        return lease

    async def _ended(self, job: Job, record: Record | None) -> None:
        message = stored_job(self._stored.head, job)
        expected = 0 if record is None else record.sequence
        await self._records.write_record(job.id, self.lane, message, expected=expected)
        await self._finish(message)

    async def _finish(self, ended: StoredJob) -> None:
        await self._endings.follow_up(self.job.id, ended, self._stored)
        await self._records.jetstream.settle(self._reply)
        await self._endings.clear(self._stored, ended)
