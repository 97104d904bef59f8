"""What a job is, told in plain values: the words that the store, the workers and the services share.

Times of day are seconds since 1970-01-01 UTC; durations carry `_s` in their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from mesh.context import Parameter
from mesh.errors import RequestError
from mesh.tensors import Tensors
from mesh.v1.call_pb2 import CallReport

__all__ = [
    "KEPT_ATTEMPTS",
    "OVER",
    "RUNS",
    "Attempt",
    "Callback",
    "Conflict",
    "Counts",
    "Job",
    "JobState",
    "Lane",
    "Page",
    "Progress",
    "Work",
]

KEPT_ATTEMPTS = 16
"""Attempts that are told of one job: the first eight and the last eight where there were more."""


class Lane(Enum):
    """What waits in one line. Its value is its place in ids, and never changes."""

    HIGH = 1
    """Runs of the graph that are taken before all others."""
    NORMAL = 2
    LOW = 3
    SHARD = 4
    """A part of a batch."""
    BATCH = 5
    """A whole batch: whoever has it looks after its shards."""


RUNS = (Lane.HIGH, Lane.NORMAL, Lane.LOW)
"""The lanes of jobs that people submit, in the order in which they are taken."""


class JobState(Enum):
    """Where a job stands."""

    QUEUED = "queued"
    """Stored; waits for a worker, or for its next attempt."""
    RUNNING = "running"
    """A worker has it."""
    DONE = "done"
    """Over, with a result."""
    FAILED = "failed"
    """Over, with an error; the dead letter has it."""
    CANCELLED = "cancelled"
    """Over: somebody ended it."""
    EXPIRED = "expired"
    """Over so long ago that nothing is known of it any more."""


OVER = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
"""The states after which none follows (but EXPIRED)."""


class Conflict(Exception):
    """A document was to be kept in place of one that is not there any more.

    Args:
        revision: The revision that is there; 0 where there is none.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"somebody else was here: revision {revision}")
        self.revision = revision


@dataclass(frozen=True, slots=True)
class Callback:
    """Who is told of a job's end: exactly one of the two."""

    url: str = ""
    """`http://` or `https://`: a POST of a CloudEvent."""
    listener: str = ""
    """`grpc://host:port` of a `JobListenerService`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done. Either `inputs` or a `task`, by the lane."""

    lane: Lane = Lane.NORMAL
    graph: str = ""
    """The topology that it is for; the store's own where empty."""
    inputs: Tensors | None = None
    """What the graph is given; None for shards and batches."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    """What the caller sent beside the tensors."""
    request_id: str = ""
    report: bool = False
    """Whether a report was asked for."""
    deadline: float | None = None
    """Time of day by which it has to be done; None for as long as it takes."""
    callback: Callback | None = None
    replay_of: str = ""
    """The job that it repeats."""
    task: bytes = b""
    """A shard or a batch, in the words of whoever runs it; empty for runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job."""

    number: int
    """From 1."""
    worker: str
    start_time: float
    end_time: float | None = None
    """None while it runs, and where its worker was lost."""
    error: RequestError | None = None
    """What it ended in; None while it runs and where it gave the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands."""

    id: str
    graph: str
    state: JobState
    lane: Lane
    submit_time: float
    deadline: float | None = None
    next_attempt_time: float | None = None
    """When it may be taken again; set between two attempts."""
    end_time: float | None = None
    expire_time: float | None = None
    """When it will be EXPIRED; set once it is over."""
    attempts: tuple[Attempt, ...] = ()
    """In their order, the one that runs included; see `KEPT_ATTEMPTS`."""
    attempt_count: int = 0
    """How many there were, the one that runs included. Those that were given back untouched do not count."""
    rows: int = 0
    """Rows that it was given."""
    outputs: Tensors | None = None
    """Set where it is DONE, gave tensors, and they were asked for."""
    report: CallReport | None = None
    """How the attempt went that gave them, where that was told."""
    outcome: bytes = b""
    """What a task ended in, in the words of whoever ran it."""
    error: RequestError | None = None
    """Why it FAILED."""
    replay_of: str = ""
    request_id: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing will be done for it any more."""
        return self.state in OVER


@dataclass(frozen=True, slots=True)
class Progress:
    """What one branch of an attempt gave while it runs; lost where nobody follows or the store is busy."""

    attempt: int
    node: str
    outputs: Tensors | RequestError


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, without outputs."""

    jobs: tuple[Job, ...]
    next_token: str
    """Where to go on; empty after the last page. A page may have no jobs, and not be the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is in a store."""

    waiting: Mapping[Lane, int]
    """Jobs by lane that no worker has: those between two attempts are with the others."""
    taken: Mapping[Lane, int]
    """Jobs by lane that were given to a worker, or wait for their next attempt."""
    queued_bytes: int
    """Bytes of both, less what is kept outside the stream."""
    dead: int
    """Jobs in the dead letter."""
    notices: int
    """Callbacks that were not told yet."""
