"""What crashes left behind is removed: payloads without a job, keys without one, work of jobs that are over."""

from __future__ import annotations

import logging

from mesh.errors import RequestError
from mesh.jobs.records import JobState
from mesh.jobs.store.blobs import id_of
from mesh.jobs.store.codec import parsed
from mesh.jobs.store.endings import Endings
from mesh.jobs.store.jetstream import Stored
from mesh.jobs.store.stored import Records
from mesh.v1.job_record_pb2 import StoredClaim, StoredWork

__all__ = ["Sweeper"]

log = logging.getLogger("mesh.jobs")

_PAYLOADS, _CLAIMS, _WORK = 256, 256, 64
"""Looked at a call; the next one goes on from there."""
_YOUNG_S = 3600.0
"""A payload is written before the job that refers to it: one that is younger is left alone."""
_CLAIM_YOUNG_S = 86_400.0
_MOST_BYTES = 4 << 20


class Sweeper:
    """Goes round, a bounded way a call.

    Args:
        records: What is shared.
        endings: What follows from an end.
    """

    def __init__(self, records: Records, endings: Endings) -> None:
        self._records = records
        self._endings = endings
        self._payload = ""
        self._claim = 1
        self._work = 1

    async def sweep(self) -> int:
        """See `JobStore.sweep`."""
        return await self._payloads() + await self._claims() + await self._finished()

    async def _payloads(self) -> int:
        """Those of no job, or of one that needs them no more."""
        records, removed = self._records, 0
        found = await records.blobs.scan(self._payload, _PAYLOADS)
        self._payload = found[-1][0] if len(found) == _PAYLOADS else ""
        for name, _, written in found:
            id = id_of(name)  # noqa: A001
            told = None if id is None else records.ids.parse(id)
            # Of another store in the same place, where it is none of ours: not ours to remove.
            if id is None or told is None or records.wall() - written < _YOUNG_S:
                continue
            if not await self._needed(name, id):
                await records.blobs.remove(name)
                removed += 1
        return removed

    async def _needed(self, name: str, id: str) -> bool:  # noqa: A002
        records = self._records
        lane = records.lane_of(id)
        if name.startswith("outputs/"):
            record = await records.record(lane, id)
            return record is not None and (record.stored.outputs.name == name or not record.job.over)
        if await records.waiting(lane, id) is not None:
            return True
        return await records.jetstream.last(records.subjects.dead, records.subjects.dead_of(id)) is not None

    async def _claims(self) -> int:
        """Those whose job never came."""
        records, removed = self._records, 0
        found, behind = await records.jetstream.page(
            records.subjects.state, records.subjects.claims, start=self._claim, most=_CLAIMS, most_bytes=_MOST_BYTES
        )
        self._claim = found[-1].sequence + 1 if behind else 1
        for stored in found:
            claim = parsed(StoredClaim(), stored.data)
            told = records.ids.parse(claim.id)
            if claim.ended or told is None or records.wall() - told.time < _CLAIM_YOUNG_S:
                continue
            job, _ = await records.look(claim.id)
            if job.state is JobState.EXPIRED and await records.jetstream.remove(
                records.subjects.state, stored.sequence
            ):
                removed += 1
        return removed

    async def _finished(self) -> int:
        """Work of jobs that are over and that nobody is given any more."""
        records, removed = self._records, 0
        filtered = f"{records.subjects.root}.work.>"
        found, behind = await records.jetstream.page(
            records.subjects.work, filtered, start=self._work, most=_WORK, most_bytes=_MOST_BYTES
        )
        self._work = found[-1].sequence + 1 if behind else 1
        for stored in found:
            removed += await self._finish(stored)
        return removed

    async def _finish(self, stored: Stored) -> bool:
        records = self._records
        id = stored.subject.rpartition(".")[2]  # noqa: A001
        told = records.ids.parse(id)
        record = None if told is None else await records.record(told.lane, id)
        if record is None or record.job.end_time is None or records.wall() - record.job.end_time < _YOUNG_S:
            return False
        try:
            work = parsed(StoredWork(), stored.data)
            await self._endings.follow_up(id, record.stored, work)
            await records.jetstream.remove(records.subjects.work, stored.sequence)
            await self._endings.clear(work, record.stored)
        except RequestError as error:
            log.warning("what follows from the end of job %s is still to be done: %s", id, error)
            return False
        return True
