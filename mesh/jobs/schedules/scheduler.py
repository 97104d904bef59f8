"""`Scheduler`: begins the batches of schedules when they are due. One runs in every job worker.

A schedule's record is a document that is written by compare-and-set, so of workers that look at the same moment one
claims what is due, and the others find it claimed. What is written, and what a crash leaves behind, in this order:

1. The record, with the firing BEGINNING and what its batch is to do: from here on it will begin. If the worker dies
   now, another begins it at one of its next looks, from `HEAL_AFTER_S` on.
2. The batch itself, under the key `schedule/<name>/<due>`: begun a second time it is the same batch.
3. The record, with the batch's id. If that is not written, it is begun again (which gives the same id), and written.

A batch that has to be cancelled is so in the record first, and then cancelled at every look until it is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.jobs.records import Conflict
from mesh.jobs.schedules.firing import FiringState, Record, begun, failed, look, next_look
from mesh.jobs.schedules.messages import decode_record, encode_record
from mesh.jobs.schedules.schedule import Batches, Documents, Schedule, ScheduleTold, told
from mesh.jobs.work.pausing import happens
from mesh.v1.batch_service_pb2 import BatchSpec

__all__ = ["DEFAULT_HISTORY", "HEAL_AFTER_S", "MAX_HISTORY", "Scheduler", "tell_schedules"]

log = logging.getLogger("mesh.jobs")

HEAL_AFTER_S = 30.0
"""How long a firing is left to the worker that claimed it before others begin it, too. To look at a large input takes
long, and there is no harm in both."""
LEAST_PAUSE_S = 0.05
"""Between two looks, lest a clock that is a little slow be asked again and again."""
AGAIN_S = 5.0
"""Until the next look after one that failed."""
DEFAULT_HISTORY = 10
MAX_HISTORY = 100
"""Runs, and skips, that are told of a schedule: unless said, and at most."""
NOT_LOOKED_AT = "could not be looked at, and will be again"
NOT_BEGUN = "could not begin its batch, and will try again"


class Scheduler:
    """Looks after schedules until it is stopped.

    Args:
        schedules: Of the graph.
        store: Where their records are.
        batches: Begins batches.
        wall: The time of day, in seconds since the epoch.
        clock: What waiting is measured by.
    """

    def __init__(
        self,
        schedules: Sequence[Schedule],
        store: Documents,
        batches: Batches,
        *,
        wall: Callable[[], float] = time.time,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._schedules = schedules
        self._store = store
        self._batches = batches
        self._wall = wall
        self._clock = clock
        self._claimed: dict[str, int] = {}
        """Schedule -> the due time that was last claimed here."""
        self._complaints: set[tuple[str, str]] = set()
        """What goes on being wrong with which schedule, and was logged."""

    async def serve(self, stop: asyncio.Event) -> None:
        """Look at each schedule whenever something is to be done, until `stop` is set; at once if there is none.

        Whatever a look ends in, the next one comes: a store that cannot be reached begins nothing, and forgets nothing.
        """
        async with asyncio.TaskGroup() as group:
            for schedule in self._schedules:
                group.create_task(self._serve(schedule, stop), name=f"schedule {schedule.name}")

    async def _serve(self, schedule: Schedule, stop: asyncio.Event) -> None:
        delay_s = 0.0
        while not await happens(stop, self._clock, delay_s):
            try:
                delay_s = max(LEAST_PAUSE_S, await self.look(schedule))
                self._complaints.discard((schedule.name, NOT_LOOKED_AT))
            except RequestError as error:
                self._complain(schedule, NOT_LOOKED_AT, error)
                delay_s = AGAIN_S
            except Exception:
                log.exception("schedule %s %s", schedule.name, NOT_LOOKED_AT)
                delay_s = AGAIN_S

    async def look(self, schedule: Schedule) -> float:
        """Do what is to be done for a schedule now.

        Returns:
            Seconds until the next look.

        Raises:
            RequestError: The store could not be asked, or the batch not.
        """
        stored = await self._store.read(schedule.document)
        record, revision = (None, 0) if stored is None else (decode_record(stored[0]), stored[1])
        running = record is not None and record.current is not None and record.current.state is FiringState.RUNNING
        seen = await self._batches.state(record.current.batch) if running and record and record.current else None
        now = self._wall()
        after = self._with_spec(schedule, look(schedule.rules, record, now, seen))
        try:
            if after != record:
                revision = await self._store.keep(schedule.document, encode_record(after), revision)
                self._note(schedule, record, after)
            after = await self._act(schedule, after, revision)
        except Conflict:
            return 0.0  # another worker was faster: what is left to do is in what it wrote
        return next_look(schedule.rules, after, self._wall())

    def _with_spec(self, schedule: Schedule, record: Record) -> Record:
        current = record.current
        if current is None or current.state is not FiringState.BEGINNING or current.spec:
            return record
        self._claimed[schedule.name] = current.due
        spec = schedule.spec(current.due).SerializeToString(deterministic=True)
        return replace(record, current=replace(current, spec=spec))

    async def _act(self, schedule: Schedule, record: Record, revision: int) -> Record:
        """Begin or cancel the batch that the record speaks of."""
        current = record.current
        if current is not None and current.state is FiringState.BEGINNING and self._ours(schedule, record):
            record = await self._begun(schedule, record)
            if record.current is not current:
                await self._store.keep(schedule.document, encode_record(record), revision)
        current = record.current
        if current is not None and current.state is FiringState.RUNNING and current.ending:
            log.info("schedule %s: batch %s is cancelled: %s", schedule.name, current.batch, current.ending)
            await self._batches.cancel(current.batch)
        return record

    def _ours(self, schedule: Schedule, record: Record) -> bool:
        """Whether this worker begins the firing: it claimed it, or whoever did is taken to be dead."""
        current = record.current
        assert current is not None
        # Either way round: a clock may have been put back since.
        return self._claimed.get(schedule.name) == current.due or abs(self._wall() - current.claim_time) >= HEAL_AFTER_S

    async def _begun(self, schedule: Schedule, record: Record) -> Record:
        """The record after an attempt to begin its firing; the same one if that is to be tried again."""
        current = record.current
        assert current is not None
        spec = BatchSpec.FromString(current.spec)
        key = schedule.key(current.due)
        try:
            batch = await self._batches.start(spec, key, schedule=schedule.name, due_time=float(current.due))
        except (Unavailable, Overloaded) as error:
            self._complain(schedule, NOT_BEGUN, error)
            return record
        except RequestError as error:
            log.warning("schedule %s could not begin its batch: %s", schedule.name, error)
            return failed(record, str(error), self._wall())
        log.info("schedule %s has begun batch %s", schedule.name, batch)
        self._complaints.discard((schedule.name, NOT_BEGUN))
        return begun(record, batch)

    def _note(self, schedule: Schedule, before: Record | None, after: Record) -> None:
        """Log what the last look decided about due times."""
        known = () if before is None else before.skips[:1]
        for skip in after.skips:
            if skip in known:
                break
            log.warning("schedule %s leaves out %s: %s", schedule.name, _shown(schedule, skip.due), skip.reason)

    def _complain(self, schedule: Schedule, text: str, error: RequestError) -> None:
        """Log something that will come again, once."""
        if (schedule.name, text) not in self._complaints:
            self._complaints.add((schedule.name, text))
            log.warning("schedule %s %s: %s", schedule.name, text, error)


def _shown(schedule: Schedule, due: int) -> str:
    return schedule.rules.times.local(due).isoformat(sep=" ", timespec="minutes")


async def tell_schedules(
    schedules: Sequence[Schedule], store: Documents | None, now: float, history: int = DEFAULT_HISTORY
) -> list[ScheduleTold]:
    """What is told of each schedule: the answer of `BatchService.ListSchedules`.

    Args:
        schedules: Of the graph.
        store: Where their records are; None where nobody can be asked, and only the times ahead are told.
        now: Seconds since the epoch.
        history: Most runs, and most skips, of each.
    """
    found: list[ScheduleTold] = []
    for schedule in schedules:
        stored = None if store is None else await store.read(schedule.document)
        record = None if stored is None else decode_record(stored[0])
        found.append(told(schedule, record, now, min(history, MAX_HISTORY)))
    return found
