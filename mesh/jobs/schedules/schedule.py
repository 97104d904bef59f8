"""`Schedule`: a batch that begins by itself, made ready from what the topology says; and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from mesh.context import Context
from mesh.errors import SetupError
from mesh.jobs.schedules.firing import Firing, Record, Rules, Seen, Skip
from mesh.jobs.schedules.times import Times
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphBatch, GraphSchedule
from mesh.transports.codec import encode_options
from mesh.v1.batch_service_pb2 import BatchOnError, BatchSpec

__all__ = ["NEXT_TIMES", "Batches", "Documents", "Schedule", "ScheduleTold", "schedules_of", "told"]

NEXT_TIMES = 3
"""Due times ahead that are told of a schedule."""


class Batches(Protocol):
    """How a schedule begins batches and looks after them.

    Each method may raise `Unavailable` and `Overloaded`, and is then asked again.
    """

    async def start(self, spec: BatchSpec, key: str, *, schedule: str, due_time: float) -> str:
        """Begin a batch, and answer once it is stored.

        Args:
            spec: What to do. Its folders are those of the topology file, so they need no one's permission.
            key: Makes it safe to ask again, and it is asked again: after a crash, and by several workers at once. The
                same key gives the same batch, also if that is over.
            schedule: Told of the batch: the schedule that it comes from.
            due_time: And when that was due, in seconds since the epoch.

        Returns:
            Its id.

        Raises:
            RequestError: It cannot be begun as it is (`InvalidInput`: no such input, an output that is not empty).
        """
        ...

    async def state(self, batch: str, /) -> Seen | None:
        """How far a batch is; None if the store does not know it any more."""
        ...

    async def cancel(self, batch: str, /) -> None:
        """End a batch that is not over. What is written stays and can be resumed."""
        ...


class Documents(Protocol):
    """The small documents of a store: `mesh.jobs.store.job_store.JobStore`."""

    async def keep(self, key: str, data: bytes, expected: int | None = None) -> int:
        """Write one in place of a revision, 0 for none; raises `Conflict` if that is not there."""
        ...

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """One, and its revision."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule of a graph."""

    name: str
    graph: str
    """The graph's name."""
    rules: Rules
    batch: GraphBatch

    @property
    def document(self) -> str:
        """The key of its record in the store."""
        return f"schedule.{self.name}"

    def key(self, due: int) -> str:
        """The idempotency key of the batch of a due time."""
        return f"schedule/{self.name}/{due}"

    def spec(self, due: int) -> BatchSpec:
        """What is to be done at a due time: `{date}`, `{time}` and `{schedule}` filled in, in the schedule's zone."""
        date, time = self.rules.times.label(due)
        spec = self.written
        spec.input = self.batch.input.format(date=date, time=time, schedule=self.name)
        spec.output = self.batch.output.format(date=date, time=time, schedule=self.name)
        return spec

    @property
    def written(self) -> BatchSpec:
        """The same, as the topology has it."""
        batch = self.batch
        on_error = (
            BatchOnError(keep_going=True) if batch.stop_after is None else BatchOnError(stop_after=batch.stop_after)
        )
        return BatchSpec(
            graph=self.graph,
            input=batch.input,
            input_format=batch.input_format,
            columns=batch.columns,
            output=batch.output,
            keep=batch.keep,
            outputs=batch.outputs,
            shard_rows=batch.shard_rows,
            request_rows=batch.request_rows,
            on_error=on_error,
            parameters=encode_options(Context(parameters=batch.parameters)).parameters,
        )


def schedules_of(graph: Graph) -> tuple[Schedule, ...]:
    """The schedules of a graph.

    Raises:
        SetupError: One is never due, or its zone is not known on this machine; or croniter is not installed.
    """
    return tuple(_schedule(graph.name, one) for one in graph.schedules)


def _schedule(graph: str, one: GraphSchedule) -> Schedule:
    try:
        times = Times(one.cron, one.timezone)
    except ValueError as error:
        # The topology was checked where it was read; its workers may run on another machine.
        raise SetupError(f"schedule {one.name}: {error}") from None
    rules = Rules(times=times, window_s=one.window_s, overlap=one.overlap, catch_up=one.catch_up)
    return Schedule(name=one.name, graph=graph, rules=rules, batch=one.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleTold:
    """What is told of a schedule. Times in seconds since the epoch."""

    name: str
    cron: str
    timezone: str
    window_s: float | None = None
    overlap: str
    catch_up: str
    spec: BatchSpec = field(default_factory=BatchSpec)
    """What begins; input and output as the topology has them."""
    next_times: tuple[float, ...] = ()
    """The next due times, at most `NEXT_TIMES`."""
    current: Firing | None = None
    waiting: tuple[int, ...] = ()
    runs: tuple[Firing, ...] = ()
    """What is over, the latest first."""
    skips: tuple[Skip, ...] = ()
    """The latest first."""


def told(schedule: Schedule, record: Record | None, now: float, history: int) -> ScheduleTold:
    """What is told of a schedule.

    Args:
        schedule: Which.
        record: What is known of it; None if no worker has looked at it yet, or nobody was asked.
        now: Seconds since the epoch.
        history: Most runs, and most skips.
    """
    rules = schedule.rules
    known = record or Record(cron=rules.times.cron, timezone=rules.times.timezone, handled=int(now // 1))
    # One that was changed begins anew: what was handled of the old one is no matter.
    same = (known.cron, known.timezone) == (rules.times.cron, rules.times.timezone)
    since = max(now, known.handled) if same else now
    return ScheduleTold(
        name=schedule.name,
        cron=rules.times.cron,
        timezone=rules.times.timezone,
        window_s=rules.window_s,
        overlap=rules.overlap,
        catch_up=rules.catch_up,
        spec=schedule.written,
        next_times=tuple(_next(rules.times, since)),
        current=known.current,
        waiting=known.waiting,
        runs=known.runs[:history],
        skips=known.skips[:history],
    )


def _next(times: Times, since: float) -> Iterable[float]:
    due = times.after(since)
    for _ in range(NEXT_TIMES):
        if due is None:
            return
        yield float(due)
        due = times.after(due)
