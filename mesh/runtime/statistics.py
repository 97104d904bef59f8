"""What one worker counts: plain numbers that its handlers add to, and what they come to when somebody asks.

Everything is counted where it happens: a node's requests around its layers and its batches within them, rows that a
condition kept away where the condition is evaluated, branches where their join runs, links where they are called. A
count costs an addition and a time costs a look at the clock, so they are always kept.

Nobody measures how long rows wait in a node's layers. It follows: each row of a request is in the node's hands from the
request's arrival to its end, and in the node itself while its batch runs. Added up over rows, the difference was spent
waiting, whichever rows the batches were made of.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import CoroutineType
from typing import Any

import numpy as np

from mesh.context import SYSTEM_CLOCK, Clock, Context
from mesh.errors import RequestError
from mesh.handler import Branches, Handler
from mesh.runtime.crossing import ROWS
from mesh.runtime.outcomes import Outcomes
from mesh.runtime.shadowing import Shadow
from mesh.tensors import Tensors
from mesh.transports.contract import Event, GraphHandler
from mesh.transports.statistics import (
    BUCKETS,
    ArmStatistics,
    BranchStatistics,
    GraphStatistics,
    NodeStatistics,
    ShadowStatistics,
    Statistics,
    WorkerTold,
)

__all__ = ["CallCounter", "CountedGraph", "NodeCounter", "WorkerCounters"]

_LAST = len(BUCKETS)
"""The bucket without a bound."""


class CallCounter:
    """Calls of one handler."""

    __slots__ = ("elapsed_s", "errors", "in_flight", "requests", "row_s", "rows")

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self.in_flight = 0
        self.errors: dict[str, int] = {}
        self.elapsed_s = 0.0
        """Of calls that were answered."""
        self.row_s = 0.0
        """Of all calls, times their rows."""

    @property
    def answered(self) -> int:
        """Calls that were answered."""
        return self.requests - self.in_flight - sum(self.errors.values())

    def around(self, handler: Handler[Any]) -> Handler[Any]:
        """The same handler, counted."""

        async def call(request: Tensors | Branches, context: Context, /) -> Tensors:
            rows = request.rows if isinstance(request, Branches) else _rows(request)
            now = context.clock.now
            # As `begin`, which would cost a call.
            self.requests += 1
            self.rows += rows
            self.in_flight += 1
            began = now()
            try:
                answer = await handler(request, context)
            except BaseException as error:
                self.row_s += rows * (now() - began)
                self.fail(error, context)
                raise
            took_s = now() - began
            self.elapsed_s += took_s
            self.row_s += rows * took_s
            self.in_flight -= 1
            return answer

        return call

    def begin(self, rows: int, context: Context) -> float:
        """Count a call in; returns the time."""
        self.requests += 1
        self.rows += rows
        self.in_flight += 1
        return context.clock.now()

    def fail(self, error: BaseException, context: Context) -> None:
        """Count a call out that was not answered."""
        self.in_flight -= 1
        code = _code(error, context)
        self.errors[code] = self.errors.get(code, 0) + 1


def _code(error: BaseException, context: Context) -> str:
    if isinstance(error, RequestError):
        return error.code
    # Whoever waits for the deadline cancels what is late.
    remaining_s = context.remaining_s()
    return "CANCELLED" if remaining_s is None or remaining_s > 0 else "DEADLINE_EXCEEDED"


class NodeCounter:
    """One node: its requests, and the batches that its layers make of them."""

    __slots__ = ("_batch_rows", "_batch_s", "_compute_s", "_rows_run", "calls", "layered", "link", "rows_skipped")

    def __init__(self) -> None:
        self.calls = CallCounter()
        self.layered = False
        """Some of its layers stand here."""
        self.link: CallCounter | None = None
        """Where some of its layers stand with the caller: what they call."""
        self.rows_skipped = 0
        """Rows that did not meet its condition."""
        self._batch_rows = [0] * (_LAST + 1)
        self._compute_s = 0.0
        self._rows_run = 0
        self._batch_s = 0.0
        """Times of batches, times their rows."""

    def ran(self, rows: int, seconds: float) -> None:
        """The node itself took so long for one batch, whatever came of it."""
        self._batch_rows[min((rows - 1).bit_length(), _LAST) if rows else 0] += 1
        self._compute_s += seconds
        self._rows_run += rows
        self._batch_s += rows * seconds

    @property
    def row_s(self) -> float:
        """What the node itself took for a row, in the mean; zero where it was never run."""
        return self._compute_s / self._rows_run if self._rows_run else 0.0

    def told(self, node: str) -> NodeStatistics:
        """What it comes to."""
        calls, batches = self.calls, list(self._batch_rows)
        while batches and not batches[-1]:
            batches.pop()
        inside_s = self._batch_s if self.link is None else self.link.row_s
        return NodeStatistics(
            node=node,
            requests=calls.requests,
            rows=calls.rows,
            rows_skipped=self.rows_skipped,
            in_flight=calls.in_flight,
            errors=dict(sorted(calls.errors.items())),
            elapsed_s=calls.elapsed_s,
            # A batch that has ended may have callers that have not; and two attempts of one request may overlap.
            queue_s=max(0.0, calls.row_s - inside_s) if self.layered else 0.0,
            compute_s=self._compute_s,
            batches=sum(batches),
            batch_rows=tuple(batches),
        )


def _rows(request: Tensors) -> int:
    """The rows of a request that nobody has held against anything yet; a part of a graph is told them."""
    if ROWS in request:
        array = request[ROWS]
        return max(0, int(array[0])) if array.shape == (1,) and array.dtype == np.int64 else 0
    for array in request.values():
        return array.shape[0] if array.ndim else 0
    return 0


class CountedGraph:
    """A graph or a part of one, counted.

    Args:
        root: The graph.
        counter: What its calls are added to.
    """

    def __init__(self, root: GraphHandler, counter: CallCounter) -> None:
        self._root = root
        self._call = counter.around(root)
        self._counter = counter

    def __call__(self, request: Tensors, context: Context, /) -> CoroutineType[Any, Any, Tensors]:
        """As the graph itself."""
        return self._call(request, context)

    async def stream(self, request: Tensors, context: Context, /) -> AsyncGenerator[Event, None]:
        """As the graph itself; a stream whose last event is an error is a request that failed."""
        began = self._counter.begin(_rows(request), context)
        last: Tensors | RequestError | None = None
        try:
            async with aclosing(self._root.stream(request, context)) as events:
                async for node, last in events:
                    yield node, last
        except BaseException as error:
            self._counter.fail(error, context)
            raise
        if isinstance(last, RequestError):
            self._counter.fail(last, context)
            return
        self._counter.elapsed_s += context.clock.now() - began
        self._counter.in_flight -= 1


class WorkerCounters:
    """Everything that one worker process counts.

    Args:
        worker: Its name.
        clock: What its age is measured by.
    """

    def __init__(self, worker: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._worker = worker
        self._clock = clock
        self._began = clock.now()
        self.nodes: dict[str, NodeCounter] = {}
        self.arms: dict[tuple[str, str], int] = {}
        """Split and node -> rows."""
        self.outcomes: dict[str, Outcomes] = {}
        """By aggregate."""
        self.graphs: dict[str, CallCounter] = {}
        """The whole graph at its gateway, and parts that are called as one."""
        self.links: dict[str, CallCounter] = {}
        """By part of the graph, calls to the worker that runs it."""
        self.shadows: tuple[Shadow, ...] = ()

    def node(self, name: str) -> NodeCounter:
        """The counter of a node, which may run here, or be asked for from here."""
        return self.nodes.setdefault(name, NodeCounter())

    def joins(self, name: str, branches: Iterable[str]) -> Outcomes:
        """The counters of an aggregate and its branches."""
        return self.outcomes.setdefault(name, Outcomes(branches))

    def graph(self, name: str) -> CallCounter:
        """The counter of a graph, or of a part of one."""
        return self.graphs.setdefault(name, CallCounter())

    def link(self, part: str) -> CallCounter:
        """The counter of calls to whoever runs a part of the graph."""
        return self.links.setdefault(part, CallCounter())

    def drawn(self, split: str, node: str, rows: int) -> None:
        """So many rows fell to an arm of a split."""
        self.arms[split, node] = self.arms.get((split, node), 0) + rows

    def told(self, graph: str = "") -> Statistics:
        """What everything comes to.

        Args:
            graph: The whole graph's name where this is its gateway.
        """
        return Statistics(
            graph=graph,
            graphs=tuple(self._graphs(graph)),
            nodes=tuple(counter.told(node) for node, counter in self.nodes.items()),
            branches=tuple(
                BranchStatistics(
                    node=node,
                    branch=branch,
                    answered=counter.answered,
                    failed=counter.failed,
                    late=counter.late,
                    without_rows=counter.without_rows,
                    behind_s=counter.behind_s,
                    max_behind_s=counter.max_behind_s,
                )
                for node, outcomes in self.outcomes.items()
                for branch, counter in outcomes.counters.items()
            ),
            shadows=tuple(map(_shadow, self.shadows)),
            arms=tuple(ArmStatistics(split=split, node=node, rows=rows) for (split, node), rows in self.arms.items()),
            workers=(WorkerTold(self._worker, os.getpid(), self._clock.now() - self._began),),
        )

    def _graphs(self, whole: str) -> Iterable[GraphStatistics]:
        for name, counter in sorted(self.graphs.items(), key=lambda item: (item[0] != whole, item[0])):
            # Every part has its endpoint; most are called by nobody, where the gateway runs them itself.
            if counter.requests or name == whole:
                yield GraphStatistics(
                    graph=name,
                    requests=counter.requests,
                    rows=counter.rows,
                    in_flight=counter.in_flight,
                    errors=dict(sorted(counter.errors.items())),
                    elapsed_s=counter.elapsed_s,
                )


def _shadow(shadow: Shadow) -> ShadowStatistics:
    seen = shadow.comparison
    return ShadowStatistics(
        node=shadow.name,
        target=shadow.target,
        rows_alike=seen.rows_alike,
        rows_unlike=seen.rows_unlike,
        failed=seen.failed,
        dropped=seen.dropped,
    )
