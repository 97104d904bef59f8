"""What workers count, as values: what `mesh.v1.GraphService.Stats` tells, and several workers' numbers put together.

Counts and times are sums since a worker started; nothing is ever set back. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from typing import Any, TypeVar

from mesh.errors import RequestError

__all__ = [
    "BUCKETS",
    "ArmStatistics",
    "BranchStatistics",
    "CacheStatistics",
    "CachedStatistics",
    "GraphStatistics",
    "MissingWorker",
    "NodeStatistics",
    "ShadowStatistics",
    "Statistics",
    "Tell",
    "WorkerTold",
    "together",
]

BUCKETS = tuple(1 << power for power in range(11))
"""Most rows of a batch in each bucket but the last, which has no bound: 1, 2, 4, ... 1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """What was counted at one node."""

    node: str
    requests: int = 0
    """Requests that it was given, those that failed and those in flight included."""
    rows: int = 0
    """Rows of those requests."""
    rows_skipped: int = 0
    """Rows that came up to it and did not meet its condition."""
    in_flight: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    """By gRPC status name."""
    elapsed_s: float = 0.0
    """From request to answer, with the node's layers; the sum over the requests that were answered."""
    queue_s: float = 0.0
    """What rows spent in the node's layers; the sum over rows."""
    compute_s: float = 0.0
    """In the node itself; the sum over batches."""
    wire_s: float = 0.0
    """Between the gateway and the worker, both ways; the sum over answered calls. Told by gateways."""
    batches: int = 0
    """Times that the node itself was called."""
    batch_rows: tuple[int, ...] = ()
    """Batches by their rows, a number for each of `BUCKETS` and one for what is beyond; trailing zeros left out."""

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())

    @property
    def answered(self) -> int:
        """Requests that were answered."""
        return self.requests - self.in_flight - self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchStatistics:
    """What became of one branch of a join."""

    node: str
    """The aggregate."""
    branch: str
    answered: int = 0
    failed: int = 0
    late: int = 0
    """Joins that ran, or could not run, before it was there."""
    without_rows: int = 0
    behind_s: float = 0.0
    """How long it ended after the first branch of the same join, or was still out when the join ran; the sum."""
    max_behind_s: float = field(default=0.0, metadata={"put_together": max})
    """The longest of those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStatistics:
    """How a shadow's answers compare with those of the node that it mirrors."""

    node: str
    target: str
    rows_alike: int = 0
    rows_unlike: int = 0
    failed: int = 0
    """Requests that it failed on."""
    dropped: int = 0
    """Requests that it was not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStatistics:
    """One arm of a split."""

    split: str
    node: str
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedStatistics:
    """What became of the rows that a node's cache layer was asked for."""

    node: str
    cache: str
    """By its name in the topology."""
    hits: int = 0
    misses: int = 0
    """Rows that were computed."""
    coalesced: int = 0
    """Rows that were wanted by several at once, or several times in a batch, and computed once."""
    stale: int = 0
    """Of the hits, those whose time was over."""
    negative: int = 0
    """Rows that were known to be refused."""
    refreshes: int = 0
    """Rows that were computed behind callers' backs."""
    broken: int = 0
    """Values that were there and could not be used."""
    recomputed: int = 0
    """Requests whose rows did not fit together."""
    saved_s: float = 0.0
    """What the node would have needed for the rows that it was spared, by its mean time for a row."""

    @property
    def hit_ratio(self) -> float | None:
        """The share of the rows that the node was spared; None where there were none."""
        spared = self.hits + self.coalesced + self.negative
        return spared / (spared + self.misses) if spared + self.misses else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """One cache in one process, or one of its tiers."""

    cache: str
    """Its name in the topology: of a cache, or of a cache node."""
    backend: str
    holder: str
    """The process, as `worker (pid)`."""
    tier: int = 0
    """Which of the cache's tiers, from 1, the uppermost; 0 of the cache as a whole. What tiers hold and drop is told by
    each alone."""
    hits: int = 0
    misses: int = 0
    kept: int = 0
    evictions: int = 0
    expirations: int = 0
    failures: int = 0
    entries: int | None = None
    nbytes: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphStatistics:
    """A graph at its gateway, or a part of one that a worker runs as one."""

    graph: str
    requests: int = 0
    rows: int = 0
    """Rows of those requests."""
    in_flight: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    elapsed_s: float = 0.0
    """From request to answer; the sum over the requests that were answered."""

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(self.errors.values())

    @property
    def answered(self) -> int:
        """Requests that were answered."""
        return self.requests - self.in_flight - self.failed


@dataclass(frozen=True, slots=True)
class WorkerTold:
    """A worker process whose numbers are here."""

    worker: str
    pid: int
    counting_s: float
    """How long it has been counting."""


@dataclass(frozen=True, slots=True)
class MissingWorker:
    """A worker process whose numbers are not here."""

    worker: str
    replica: int
    error: RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """One worker's numbers, or those of a mesh."""

    graph: str = ""
    """The whole graph's name, where its gateway tells; else empty."""
    graphs: tuple[GraphStatistics, ...] = ()
    nodes: tuple[NodeStatistics, ...] = ()
    branches: tuple[BranchStatistics, ...] = ()
    shadows: tuple[ShadowStatistics, ...] = ()
    arms: tuple[ArmStatistics, ...] = ()
    workers: tuple[WorkerTold, ...] = ()
    missing: tuple[MissingWorker, ...] = ()
    cached: tuple[CachedStatistics, ...] = ()
    caches: tuple[CacheStatistics, ...] = ()


Tell = Callable[[bool], Awaitable[Statistics]]
"""Tells what was counted: by this process alone where it is given True, else, at a gateway, by the whole mesh."""

Counted = TypeVar(
    "Counted",
    NodeStatistics,
    BranchStatistics,
    ShadowStatistics,
    ArmStatistics,
    GraphStatistics,
    CachedStatistics,
)


def together(told: Iterable[Statistics]) -> Statistics:
    """The numbers of several workers as those of one mesh; what is of the same node, branch or arm is added up."""
    every = list(told)
    return Statistics(
        graph=next((one.graph for one in every if one.graph), ""),
        graphs=_added(found for one in every for found in one.graphs),
        nodes=_added(found for one in every for found in one.nodes),
        branches=_added(found for one in every for found in one.branches),
        shadows=_added(found for one in every for found in one.shadows),
        arms=_added(found for one in every for found in one.arms),
        workers=tuple(found for one in every for found in one.workers),
        missing=tuple(found for one in every for found in one.missing),
        cached=_added(found for one in every for found in one.cached),
        caches=tuple(found for one in every for found in one.caches),
    )


def _added(found: Iterable[Counted]) -> tuple[Counted, ...]:
    by_name: dict[tuple[str, ...], Counted] = {}
    for one in found:
        name = tuple(value for part in fields(one) if isinstance(value := getattr(one, part.name), str))
        other = by_name.get(name)
        by_name[name] = one if other is None else _sum(other, one)
    return tuple(by_name.values())


def _sum(one: Counted, other: Counted) -> Counted:
    changed: dict[str, Any] = {}
    for part in fields(one):
        mine, theirs = getattr(one, part.name), getattr(other, part.name)
        if isinstance(mine, Mapping):
            changed[part.name] = {code: mine.get(code, 0) + theirs.get(code, 0) for code in sorted({*mine, *theirs})}
        elif isinstance(mine, tuple):
            changed[part.name] = tuple(map(sum, zip_longest(mine, theirs, fillvalue=0)))
        elif not isinstance(mine, str):
            put_together: Callable[[Any, Any], Any] = part.metadata.get("put_together", _plus)
            changed[part.name] = put_together(mine, theirs)
    return replace(one, **changed)


def _plus(one: Any, other: Any) -> Any:
    return one + other
