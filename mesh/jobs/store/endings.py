"""How a job ends, and what follows: dead letter, notice, claim; see `mesh.jobs.store.streams` for their order."""

from __future__ import annotations

import contextlib
import logging

from mesh.errors import RequestError, Unavailable
from mesh.jobs.records import Conflict, Job, JobState, Lane
from mesh.jobs.store.codec import parsed, queued, stored_job
from mesh.jobs.store.next_step import over
from mesh.jobs.store.stored import BEYOND_S, Records
from mesh.v1 import job_service_pb2
from mesh.v1.job_record_pb2 import StoredClaim, StoredDead, StoredJob, StoredNotice, StoredWork

__all__ = ["RACES", "Endings"]

log = logging.getLogger("mesh.jobs")

RACES = 32
"""How often somebody else may come first before a caller is told to try again."""


class Endings:
    """Ends of jobs.

    Args:
        records: What is shared.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def follow_up(self, id: str, ended: StoredJob, work: StoredWork) -> None:  # noqa: A002
        """Write what follows from an end that is written. All of it may be done twice.

        Raises:
            Overloaded, Unavailable: Some of it is not; the next delivery writes it.
        """
        records, subjects = self._records, self._records.subjects
        if ended.state == job_service_pb2.JOB_STATE_FAILED:
            dead = StoredDead(id=id, work=work, job=ended).SerializeToString()
            await records.jetstream.write(subjects.dead, subjects.dead_of(id), dead)
        if work.HasField("callback"):
            told = StoredJob()
            told.CopyFrom(ended)
            told.ClearField("outputs")
            told.ClearField("outcome")
            notice = StoredNotice(id=id, job=told, callback=work.callback).SerializeToString()
            with contextlib.suppress(Conflict):  # it is there
                await records.jetstream.write(subjects.notices, subjects.notice_of(id), notice, expected=0)
        if work.claim:
            await self._end_claim(work.claim, id, ended.expire_time)

    async def _end_claim(self, subject: str, id: str, expire_time: float) -> None:  # noqa: A002
        records = self._records
        for _ in range(RACES):
            stored = await records.jetstream.last(records.subjects.state, subject)
            if stored is None:
                return
            claim = parsed(StoredClaim(), stored.data)
            if claim.ended or claim.id != id:
                return
            claim.ended = True
            ttl_s = max(0.0, expire_time - records.wall()) + BEYOND_S
            try:
                await records.jetstream.write(
                    records.subjects.state, subject, claim.SerializeToString(), expected=stored.sequence, ttl_s=ttl_s
                )
                return
            except Conflict:
                continue  # somebody submitted with the same key

    async def clear(self, work: StoredWork, ended: StoredJob) -> None:
        """Remove the payload of a job whose work is gone, unless the dead letter has it."""
        if work.inputs.name and ended.state != job_service_pb2.JOB_STATE_FAILED:
            await self._records.blobs.remove(work.inputs.name)

    async def cancel(self, id: str) -> Job:  # noqa: A002
        """See `JobStore.cancel`."""
        records = self._records
        lane = records.lane_of(id)
        for _ in range(RACES):
            record = await records.record(lane, id)
            waiting = await records.waiting(lane, id)
            if record is None and waiting is None:
                job, record = await records.look(id)
                if record is None:
                    if job.over:
                        return job
                    continue
            if record is not None and record.job.over:
                return (await records.look(id))[0]
            if record is not None:
                job, head = record.job, record.stored.head
            else:
                assert waiting is not None
                job, head = queued(id, lane, waiting.stored.head), waiting.stored.head
            job = over(job, JobState.CANCELLED, records.wall(), records.settings)
            message = stored_job(head, job)
            try:
                expected = 0 if record is None else record.sequence
                await records.write_record(id, lane, message, expected=expected)
            except Conflict:
                continue  # a worker began, or ended it
            records.spawn(records.jetstream.connection.publish(records.subjects.cancel_of(id)), "telling a worker")
            if waiting is not None:
                await self._finish(id, lane, message, waiting.stored, waiting.sequence)
            return job
        raise Unavailable(f"job {id} changes all the time", retry_after_s=1.0)

    async def _finish(self, id: str, lane: Lane, ended: StoredJob, work: StoredWork, sequence: int) -> None:  # noqa: A002
        try:
            await self.follow_up(id, ended, work)
            await self._records.jetstream.remove(self._records.subjects.work, sequence)
            await self.clear(work, ended)
        except RequestError as error:
            # The end stands. Whoever is delivered the work goes on here.
            log.warning("job %s (%s) is over, and what follows is left to a worker: %s", id, lane.name.lower(), error)
