"""A delivery and its lease that do what a test says, for tests of what a worker makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mesh.errors import RequestError
from mesh.jobs.records import Job, JobState, Lane, Progress, Work
from mesh.jobs.store.job_store import Delivery, JobStore, Lease
from mesh.jobs.store.settings import StoreSettings
from mesh.tensors import Tensors
from mesh.v1.call_pb2 import CallReport

__all__ = ["ScriptedDelivery", "ScriptedLease", "ScriptedStore"]


def running(work: Work) -> Job:
    return Job(id="j" * 32, graph="flow", state=JobState.RUNNING, lane=work.lane, submit_time=1.0, request_id="r")


class ScriptedLease(Lease):
    """Remembers how the attempt ended."""

    def __init__(self, work: Work, number: int = 1) -> None:
        self.work = work
        self.job = running(work)
        self.cancelled = asyncio.Event()
        self.beats = 0
        self.lost_at: int | None = None
        """The heartbeat that finds that somebody else has it."""
        self.told: list[Progress] = []
        self.end: tuple[str, Any] | None = None
        self.refusals: list[RequestError] = []
        """What the store says before it takes the end."""
        self.taken = True
        self._number = number

    @property
    def number(self) -> int:
        return self._number

    async def extend(self) -> bool:
        self.beats += 1
        if self.beats == self.lost_at:
            self.cancelled.set()
        return not self.cancelled.is_set()

    def publish(self, progress: Progress) -> None:
        self.told.append(progress)

    def _end_with(self, how: str, what: Any) -> bool:
        if self.refusals:
            raise self.refusals.pop(0)
        assert self.end is None, "an attempt ends once"
        self.end = (how, what)
        return self.taken

    async def done(
        self, outputs: Tensors | None = None, report: CallReport | None = None, *, outcome: bytes = b""
    ) -> bool:
        return self._end_with("done", (outputs, report, outcome))

    async def retry(self, error: RequestError, delay_s: float) -> bool:
        return self._end_with("retry", (error, delay_s))

    async def fail(self, error: RequestError) -> bool:
        return self._end_with("fail", error)

    async def release(self) -> bool:
        return self._end_with("release", None)


class ScriptedDelivery(Delivery):
    """Gives a lease, or whatever the test says."""

    def __init__(self, lease: ScriptedLease, begin: Callable[[], Lease | None] | None = None) -> None:
        self.work = lease.work
        self.job = lease.job
        self.lease = lease
        self.refused = False
        self._begin = begin

    @property
    def lane(self) -> Lane:
        return self.work.lane

    async def begin(self, worker: str) -> Lease | None:
        return self.lease if self._begin is None else self._begin()

    async def refuse(self) -> None:
        self.refused = True


class ScriptedStore(JobStore):
    """Gives what a test puts into it, in the order of its lanes."""

    def __init__(self) -> None:
        super().__init__(StoreSettings(graph="flow", servers=("nats://nowhere:1",)))
        self.waiting: list[ScriptedDelivery] = []
        self.failures: list[Exception] = []
        """What the next questions end in."""
        self.asked: list[tuple[tuple[Lane, ...], int, float]] = []
        self.sweeps = 0
        self._more = asyncio.Event()

    def put(self, *deliveries: ScriptedDelivery) -> None:
        self.waiting += deliveries
        self._more.set()

    async def take(self, lanes: Sequence[Lane], room: int, wait_s: float = 1.0) -> list[Delivery]:
        self.asked.append((tuple(lanes), room, wait_s))
        if self.failures:
            raise self.failures.pop(0)
        if not self._found(lanes) and wait_s:
            self._more.clear()
            await self._more.wait()
        found = self._found(lanes)[:room]
        self.waiting = [one for one in self.waiting if one not in found]
        return list(found)

    def _found(self, lanes: Sequence[Lane]) -> list[ScriptedDelivery]:
        return [one for lane in lanes for one in self.waiting if one.lane is lane]

    async def sweep(self) -> int:
        self.sweeps += 1
        return 0
