"""Jobs page by page: a bounded number of messages and bytes a call, whatever the store holds."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Collection
from dataclasses import dataclass

from blake3 import blake3

from mesh.errors import InvalidInput, RequestError
from mesh.jobs.records import Job, JobState, Lane, Page
from mesh.jobs.store.codec import parsed, queued
from mesh.jobs.store.jetstream import Stored
from mesh.jobs.store.stored import Records
from mesh.v1.job_record_pb2 import StoredWork

__all__ = ["MAX_PAGE", "Listing"]

MAX_PAGE = 1000
_LOOKS = 4
"""Reads of a stream a call."""
_LOOK_MESSAGES = 256
_LOOK_BYTES = 4 << 20
_WAITING, _ENDED = "w", "e"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a listing is: in the work or in the records, and behind which sequence."""

    part: str
    start: int


class Listing:
    """Those who list.

    Args:
        records: What is shared.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def page(self, states: Collection[JobState], size: int, token: str, lanes: Collection[Lane]) -> Page:
        """See `JobStore.list`."""
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInput(f"a page has 1 to {MAX_PAGE} jobs, and not {size}")
        wanted = frozenset(states) or frozenset(JobState)
        allowed = frozenset(lanes)
        mark = blake3(repr(sorted(one.name for one in (*wanted, *allowed))).encode()).hexdigest(8)
        place: _Place | None = _place(token, mark)
        if not allowed:
            return Page((), "")
        jobs: list[Job] = []
        for _ in range(_LOOKS):
            if place is None or len(jobs) >= size:
                break
            most = min(size - len(jobs), _LOOK_MESSAGES)
            if place.part == _WAITING:
                place = await self._waiting(place.start, most, wanted, allowed, jobs)
            else:
                place = await self._ended(place.start, most, wanted, allowed, jobs)
        return Page(tuple(jobs), "" if place is None else _token(place, mark))

    async def _waiting(
        self, start: int, most: int, wanted: frozenset[JobState], lanes: frozenset[Lane], jobs: list[Job]
    ) -> _Place | None:
        """Jobs that wait or run: those with work."""
        after = _Place(_ENDED, 1)
        if not wanted & {JobState.QUEUED, JobState.RUNNING}:
            return after
        records = self._records
        found, behind = await records.jetstream.page(
            records.subjects.work,
            records.subjects.of_lanes("work", lanes),
            start=start,
            most=most,
            most_bytes=_LOOK_BYTES,
        )
        told = await asyncio.gather(*(self._job_of(stored, lanes) for stored in found))
        jobs += [job for job in told if job is not None and not job.over and job.state in wanted]
        if not behind:
            return after if wanted & {JobState.DONE, JobState.FAILED, JobState.CANCELLED} else None
        return _Place(_WAITING, found[-1].sequence + 1)

    async def _job_of(self, stored: Stored, lanes: frozenset[Lane]) -> Job | None:
        """A job from its work; None for one that cannot be told."""
        records = self._records
        id, told = _id(stored), records.ids.parse(_id(stored))  # noqa: A001
        if told is None or told.lane not in lanes:
            return None
        try:
            record = await records.record(told.lane, id)
            return queued(id, told.lane, parsed(StoredWork(), stored.data).head) if record is None else record.job
        except InvalidInput:
            return None

    async def _ended(
        self, start: int, most: int, wanted: frozenset[JobState], lanes: frozenset[Lane], jobs: list[Job]
    ) -> _Place | None:
        """Jobs that are over: those whose record says so."""
        if not wanted & {JobState.DONE, JobState.FAILED, JobState.CANCELLED}:
            return None
        records = self._records
        found, behind = await records.jetstream.page(
            records.subjects.state,
            records.subjects.of_lanes("state", lanes),
            start=start,
            most=most,
            most_bytes=_LOOK_BYTES,
        )
        for stored in found:
            told = records.ids.parse(_id(stored))
            if told is None or told.lane not in lanes:
                continue
            try:
                job = records.read_record(_id(stored), told.lane, stored).job
            except RequestError:
                continue  # one that cannot be read hides no others
            if job.over and job.state in wanted and not records.is_expired(job):
                jobs.append(job)
        return _Place(_ENDED, found[-1].sequence + 1) if behind else None


def _id(stored: Stored) -> str:
    return stored.subject.rpartition(".")[2]


def _token(place: _Place, mark: str) -> str:
    raw = json.dumps([place.part, place.start, mark]).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _place(token: str, mark: str) -> _Place:
    if not token:
        return _Place(_WAITING, 1)
    if len(token) > 200:
        raise InvalidInput("the page token is none")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        part, start, made = json.loads(raw)
    except (ValueError, TypeError):
        raise InvalidInput("the page token is none") from None
    if made != mark:
        raise InvalidInput("the page token is of a list with other states or lanes")
    if part not in (_WAITING, _ENDED) or type(start) is not int or not 0 < start < 1 << 63:
        raise InvalidInput("the page token is none")
    return _Place(part, start)
