"""A store and batches for schedules, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mesh.errors import RequestError, Unavailable
from mesh.jobs.records import Conflict
from mesh.jobs.schedules.firing import Phase, Record, Rules, Seen
from mesh.jobs.schedules.messages import decode_record
from mesh.jobs.schedules.schedule import Schedule
from mesh.jobs.schedules.scheduler import Scheduler
from mesh.jobs.schedules.times import Times
from mesh.testing import ManualClock
from mesh.topology.graph_jobs import GraphBatch
from mesh.v1.batch_service_pb2 import BatchSpec

__all__ = ["BATCH", "HOUR", "Batches", "Store", "hourly", "record_of", "serving"]

HOUR = 3600
BATCH = GraphBatch(input="/in/{date}", output="/out/{schedule}/{date}T{time}", columns={"text": "t"}, stop_after=3)


@dataclass
class Store:
    """Documents under compare-and-set; each operation lets others go first."""

    documents: dict[str, tuple[bytes, int]] = field(default_factory=dict[str, tuple[bytes, int]])
    down: bool = False

    async def keep(self, key: str, data: bytes, expected: int | None = None) -> int:
        await self._turn()
        _, revision = self.documents.get(key, (b"", 0))
        if expected is not None and expected != revision:
            raise Conflict(revision)
        self.documents[key] = (data, revision + 1)
        return revision + 1

    async def read(self, key: str) -> tuple[bytes, int] | None:
        await self._turn()
        return self.documents.get(key)

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("the store cannot be reached")


@dataclass
class Batches:
    """Batches by key, which go on until the test ends them."""

    begun: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])
    """Key -> id, and what it does."""
    seen: dict[str, Seen] = field(default_factory=dict[str, Seen])
    cancelled: list[str] = field(default_factory=list[str])
    refusal: RequestError | None = None

    async def start(self, spec: BatchSpec, key: str, *, schedule: str, due_time: float) -> str:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        assert key == f"schedule/{schedule}/{due_time:.0f}"
        what = spec.SerializeToString(deterministic=True)
        batch, before = self.begun.setdefault(key, (f"batch-{len(self.begun) + 1}", what))
        assert before == what, "the same key with something else to do"
        self.seen.setdefault(batch, Seen(Phase.GOING))
        return batch

    async def state(self, batch: str) -> Seen | None:
        await asyncio.sleep(0)
        return self.seen.get(batch)

    async def cancel(self, batch: str) -> None:
        await asyncio.sleep(0)
        self.cancelled.append(batch)
        self.seen[batch] = Seen(Phase.CANCELLED)

    def end(self, phase: Phase = Phase.DONE) -> None:
        self.seen = {one: Seen(phase) if seen.phase is Phase.GOING else seen for one, seen in self.seen.items()}


def hourly(**rules: object) -> Schedule:
    made = Rules(times=Times("0 * * * *"), **rules)  # type: ignore[arg-type]
    return Schedule(name="nightly", graph="digits", rules=made, batch=BATCH)


def record_of(store: Store) -> Record:
    return decode_record(store.documents["schedule.nightly"][0])


@asynccontextmanager
async def serving(
    store: Store, batches: Batches, clock: ManualClock, *schedules: Schedule, workers: int = 1
) -> AsyncGenerator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(Scheduler(schedules, store, batches, wall=clock.now, clock=clock).serve(stop))
        await clock.advance(0.0)
        yield
        stop.set()
    assert clock.planned == 0
