"""What a load run has seen. Pure: it is told every instant and reads no clock.

Latencies are kept as plain doubles up to a bound, so percentiles are exact until it is reached. Beyond it every one
has the same chance to be among those kept (Vitter's algorithm R), so percentiles become those of a uniform random
choice; count, mean and max stay exact. A run is never cut short by its own bookkeeping.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mesh.context import NodeTiming
from mesh.errors import RequestError

__all__ = ["Distribution", "ErrorCount", "NodeShare", "Recorder", "Sample"]

MAX_NODES = 256
"""Nodes that are told apart; a topology has far fewer, but the names come from outside."""
MAX_NODE_SAMPLES = 100_000
"""Timings kept for each of a node's three durations: 0.8 MB."""
MAX_WORKERS = 64
"""Workers that are told apart for a node."""
MAX_TEXT = 200
"""Characters kept of an error's text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Count, mean, percentiles and maximum of some durations, in seconds.

    A percentile is the smallest kept value that at least so many of the kept values do not exceed ("nearest rank",
    numpy's `inverted_cdf`): always a duration that some request really took.
    """

    count: int
    kept: int
    """How many of them the percentiles were read from."""
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float


class Sample:
    """Collects durations in at most `bound` doubles."""

    __slots__ = ("_bound", "_kept", "_max", "_random", "_total", "count")

    def __init__(self, bound: int, seed: int) -> None:
        self.count = 0
        self._bound = bound
        self._kept = array("d")
        self._total = 0.0
        self._max = -math.inf
        self._random = random.Random(seed).random

    def add(self, seconds: float) -> None:
        """Take in one duration."""
        self.count += 1
        self._total += seconds
        if seconds > self._max:
            self._max = seconds
        if self.count <= self._bound:
            self._kept.append(seconds)
        else:
            slot = int(self._random() * self.count)
            if slot < self._bound:
                self._kept[slot] = seconds

    def distribution(self) -> Distribution:
        """Of what was taken in so far: at least one duration."""
        assert self.count, "nothing has no percentiles"
        ordered = np.sort(np.array(self._kept))
        # In whole numbers: 0.999 has no exact binary form, and a rank must not depend on its rounding.
        p50, p90, p95, p99, p99_9 = (
            float(ordered[-(-len(ordered) * permille // 1000) - 1]) for permille in (500, 900, 950, 990, 999)
        )
        return Distribution(
            count=self.count,
            kept=len(ordered),
            mean=self._total / self.count,
            p50=p50,
            p90=p90,
            p95=p95,
            p99=p99,
            p99_9=p99_9,
            max=self._max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCount:
    """Requests that failed with one gRPC status."""

    code: str
    count: int
    first_text: str
    """The text of the first of them: printable, at most 200 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """What one node had of the answered requests, by the mesh's own account."""

    node: str
    workers: tuple[str, ...]
    """The workers that ran it, sorted; empty in a mesh without workers."""
    rows: int
    queue: Distribution
    compute: Distribution
    wire: Distribution


class _Node:
    __slots__ = ("compute", "queue", "rows", "wire", "workers")

    def __init__(self, seed: int) -> None:
        self.workers: set[str] = set()
        self.rows = 0
        self.queue = Sample(MAX_NODE_SAMPLES, seed)
        self.compute = Sample(MAX_NODE_SAMPLES, seed)
        self.wire = Sample(MAX_NODE_SAMPLES, seed)

    def add(self, timing: NodeTiming) -> None:
        self.rows += timing.rows
        self.queue.add(timing.queue_s)
        self.compute.add(timing.compute_s)
        self.wire.add(timing.wire_s)
        if timing.worker and timing.worker not in self.workers and len(self.workers) < MAX_WORKERS:
            self.workers.add(timing.worker)

    def share(self, node: str) -> NodeShare:
        return NodeShare(
            node=node,
            workers=tuple(sorted(self.workers)),
            rows=self.rows,
            queue=self.queue.distribution(),
            compute=self.compute.distribution(),
            wire=self.wire.distribution(),
        )


class Recorder:
    """Counts and durations of one run. What belongs to the warm-up counts only as in flight.

    Args:
        max_samples: Bound of the latencies kept, and of the send lags.
        seed: Decides which are kept beyond the bound.
    """

    def __init__(self, *, max_samples: int, seed: int) -> None:
        self.in_flight = 0
        self.warm_up = 0
        self.sent = 0
        self.failed = 0
        self.not_sent_full = 0
        """Arrivals that met as many in flight as may be."""
        self.not_sent_late = 0
        """Arrivals that could not be sent within the timeout of their intended instant."""
        self.latency = Sample(max_samples, seed)
        self.lag = Sample(max_samples, seed)
        self.last_answer = -math.inf
        """Instant of the last measured answer."""
        self._errors: dict[str, tuple[int, str]] = {}
        self._nodes: dict[str, _Node] = {}
        self._seed = seed

    @property
    def answered(self) -> int:
        """Measured requests that were answered without error."""
        return self.latency.count

    def send(self, *, measured: bool) -> None:
        """A request is on its way."""
        self.in_flight += 1
        if measured:
            self.sent += 1
        else:
            self.warm_up += 1

    def answer(self, intended: float, ended: float, timings: Sequence[NodeTiming], *, measured: bool) -> None:
        """A request was answered; its latency counts from the instant at which it was intended to be sent."""
        self.in_flight -= 1
        if not measured:
            return
        self.latency.add(ended - intended)
        self.last_answer = ended
        for timing in timings:
            node = self._nodes.get(timing.node)
            if node is None:
                if len(self._nodes) == MAX_NODES:
                    continue
                node = self._nodes[timing.node] = _Node(self._seed)
            node.add(timing)

    def fail(self, error: RequestError, *, measured: bool) -> None:
        """A request failed."""
        self.in_flight -= 1
        if not measured:
            return
        self.failed += 1
        count, first_text = self._errors.get(error.code) or (0, _printable(str(error)))
        self._errors[error.code] = (count + 1, first_text)

    def errors(self) -> tuple[ErrorCount, ...]:
        """Failures by gRPC status, the most frequent first."""
        counts = [ErrorCount(code=code, count=n, first_text=text) for code, (n, text) in self._errors.items()]
        return tuple(sorted(counts, key=lambda error: (-error.count, error.code)))

    def nodes(self) -> tuple[NodeShare, ...]:
        """The nodes' shares, in the order in which they were first seen."""
        return tuple(node.share(name) for name, node in self._nodes.items())


def _printable(text: str) -> str:
    # It comes from outside and goes to a terminal: no escape sequence gets through.
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:MAX_TEXT])
