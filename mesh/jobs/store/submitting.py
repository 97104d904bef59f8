"""Jobs are stored: one write, or two where an idempotency key comes with it."""

from __future__ import annotations

import logging
from dataclasses import replace

from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, RequestError, Unavailable
from mesh.jobs.records import Conflict, Job, JobState, Work
from mesh.jobs.store.codec import digest_of, encode_inputs, encode_work, parsed, queued
from mesh.jobs.store.endings import RACES
from mesh.jobs.store.group_commit import ATOMIC_VERSION, GroupCommit
from mesh.jobs.store.jetstream import Stored
from mesh.jobs.store.stored import Records
from mesh.v1.job_record_pb2 import StoredClaim, StoredDead, StoredWork

__all__ = ["MAX_KEY", "Submissions"]

log = logging.getLogger("mesh.jobs")

MAX_KEY = 256
"""Characters of an idempotency key."""


class Submissions:
    """Those who submit.

    Args:
        records: What is shared.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        enabled = records.jetstream.connection.version >= ATOMIC_VERSION
        work, state = records.subjects.work, records.subjects.state
        self._work = GroupCommit(records.jetstream, work, records.settings.timeout_s, enabled=enabled)
        self._claims = GroupCommit(records.jetstream, state, records.settings.timeout_s, enabled=enabled)

    async def close(self) -> None:
        """Be done with it."""
        await self._work.close()
        await self._claims.close()

    async def submit(self, work: Work, key: str, *, kind: str = "key") -> tuple[Job, bool]:
        """See `JobStore.submit`. Keys of different kinds do not meet."""
        records = self._records
        if len(key) > MAX_KEY:
            raise InvalidInput(f"an idempotency key has at most {MAX_KEY} characters, and not {len(key)}")
        if not key:
            return await self._store(work, records.ids.make(work.lane, records.wall())), False
        subject = records.subjects.claim_of(key, kind=kind)
        digest = digest_of(work, graph=records.settings.graph)
        for _ in range(RACES):
            stored = await self._claim(subject)
            if stored is None:
                made = await self._claimed(work, subject, digest)
                if made is not None:
                    return made, False
                continue  # somebody came first with the same key
            claim = _read(stored)
            if claim.digest != digest:
                raise InvalidInput("the idempotency key was used for another request")
            job, _ = await records.look(claim.id)
            if claim.ended or job.state is not JobState.EXPIRED:
                return job, True
            # Whoever claimed it died before it was stored, or is about to store it. The claim is written again, so that
            # no sweeper takes it for given up.
            try:
                await records.jetstream.write(records.subjects.state, subject, stored.data, expected=stored.sequence)
            except Conflict:
                continue
            await self._store(work, claim.id, claim=subject)
            return (await records.look(claim.id))[0], False
        raise Unavailable("the idempotency key is used by many at once", retry_after_s=1.0)

    async def replay(self, id: str) -> Job:  # noqa: A002
        """See `JobStore.replay`."""
        records = self._records
        lane = records.lane_of(id)
        claimed = await self._claim(records.subjects.claim_of(id, kind="replay"))
        if claimed is not None:
            job, _ = await records.look(_read(claimed).id)
            if _read(claimed).ended or job.state is not JobState.EXPIRED:
                return job
        stored = await records.jetstream.last(records.subjects.dead, records.subjects.dead_of(id))
        if stored is None:
            job, _ = await records.look(id)
            if job.state in (JobState.FAILED, JobState.EXPIRED):
                raise NotFound(f"the dead letter does not have job {id} any more")
            raise InvalidInput(f"job {id} is {job.state.value}: only a job that failed is replayed")
        dead = parsed(StoredDead(), stored.data)
        try:
            work = await records.work_of(lane, dead.work)
        except (InvalidInput, NotFound) as error:
            raise NotFound(f"what job {id} was given cannot be read any more: {error.text}") from error
        if work.deadline is not None:
            work = replace(work, deadline=records.wall() + work.deadline - dead.work.head.submit_time)
        job, _ = await self.submit(replace(work, replay_of=id), id, kind="replay")
        try:
            await records.jetstream.remove(records.subjects.dead, stored.sequence)
            if dead.work.inputs.name:
                await records.blobs.remove(dead.work.inputs.name)
        except RequestError as error:
            log.warning("job %s is replayed, and still in the dead letter: %s", id, error)
        return job

    async def _claim(self, subject: str) -> Stored | None:
        return await self._records.jetstream.last(self._records.subjects.state, subject)

    async def _claimed(self, work: Work, subject: str, digest: bytes) -> Job | None:
        """A new job under a new claim; None where somebody has it."""
        records = self._records
        id = records.ids.make(work.lane, records.wall())  # noqa: A001
        claim = StoredClaim(id=id, digest=digest).SerializeToString()
        records.disk.check(len(claim))
        try:
            await self._claims.write(subject, claim)
        except Conflict:
            return None
        try:
            return await self._store(work, id, claim=subject)
        except (Overloaded, InvalidInput):
            # Nothing is stored: the key is free again.
            records.spawn(self._freed(subject, claim), "freeing a key")
            raise

    async def _freed(self, subject: str, claim: bytes) -> None:
        stored = await self._claim(subject)
        if stored is not None and stored.data == claim:
            await self._records.jetstream.remove(self._records.subjects.state, stored.sequence)

    async def _store(self, work: Work, id: str, *, claim: str = "") -> Job:  # noqa: A002
        """Write what is to be done, once.

        Raises:
            InvalidInput: It is too large.
            Overloaded: As many jobs or bytes wait as may.
            Unavailable: Nobody knows whether it is stored.
        """
        records = self._records
        message = encode_work(work, graph=records.settings.graph, submit_time=records.wall(), claim=claim)
        size = message.ByteSize()
        if size > records.inline_bytes:
            raise InvalidInput(f"{size} bytes beside the tensors, where {records.inline_bytes} are taken")
        if work.inputs is None:
            records.disk.check(size)
        else:
            work.inputs.check_size(records.settings.max_payload_bytes, "takes")
            records.disk.check(work.inputs.nbytes + size)
            raw = encode_inputs(work.inputs)
            await records.check_room(len(raw))
            message.inputs.CopyFrom(await records.keep_payload(f"inputs/{id}", raw))
        try:
            await self._write(id, work, message)
        except (Overloaded, InvalidInput):
            if message.inputs.name and not claim:
                records.spawn(records.blobs.remove(message.inputs.name), "removing a refused payload")
            raise
        return queued(id, work.lane, message.head)

    async def _write(self, id: str, work: Work, message: StoredWork) -> None:  # noqa: A002
        records = self._records
        try:
            await self._work.write(records.subjects.work_of(work.lane, id), message.SerializeToString())
        except Conflict:
            pass  # stored by whoever has the same claim
        except Overloaded as error:
            text = f"as many jobs or bytes wait as may: {error.text.rpartition(': ')[2]}"
            raise Overloaded(text, retry_after_s=error.retry_after_s) from None


def _read(stored: Stored) -> StoredClaim:
    try:
        return parsed(StoredClaim(), stored.data)
    except InvalidInput as error:
        raise NodeFailed(f"the claim of a key cannot be read: {error.text}") from None
