"""What a join tells of its branches: to the request's report, and to statistics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from mesh.context import BranchOutcome, BranchState, Context, JoinOutcome, NodeTiming
from mesh.errors import DeadlineExceeded, NodeFailed, RequestError, Unavailable
from mesh.handler import Branches, Handler
from mesh.runtime.build import build_node
from mesh.runtime.executor import Executor
from mesh.runtime.making import StepMaking
from mesh.runtime.statistics import WorkerCounters
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedHandler, settle
from mesh.transports.statistics import BranchStatistics
from tests.unit.runtime.given import numbers, topology

GONE = Unavailable("gone")


class Joined:
    """Branches a, b and c that do what the test says, and their join."""

    def __init__(self, executor: Executor, counters: WorkerCounters, scripts: dict[str, ScriptedHandler]) -> None:
        self._executor = executor
        self._counters = counters
        self._scripts = scripts
        self.clock = ManualClock()
        self.joins: list[JoinOutcome] = []

    async def ask(self, *given: float, timings: list[NodeTiming] | None = None) -> asyncio.Task[Tensors]:
        context = Context(request_id="r", clock=self.clock, joins=self.joins, timings=timings)
        asking = asyncio.create_task(self._executor(numbers(*given), context))
        await settle()
        return asking

    async def reply(self, *branches: str) -> None:
        for branch in branches:
            (await self._scripts[branch].request()).echo()
            await settle()

    async def fail(self, branch: str) -> None:
        (await self._scripts[branch].request()).fail(Unavailable(GONE.text))
        await settle()

    @property
    def states(self) -> list[dict[str, str]]:
        """By join, what became of each branch."""
        return [{one.branch: one.state.value for one in join.branches} for join in self.joins]

    @property
    def counted(self) -> dict[str, BranchStatistics]:
        return {one.branch: one for one in self._counters.told().branches}

    def counts(self, branch: str) -> tuple[int, int, int, int]:
        one = self.counted[branch]
        return one.answered, one.failed, one.late, one.without_rows


@asynccontextmanager
async def joining(join: str, *, when: str = "", out: Handler[Any] | None = None) -> AsyncGenerator[Joined]:
    nodes = dict.fromkeys("ab", "Affine, inputs: {x: x}")
    nodes["c"] = "Affine, inputs: {x: x}" + (when and f", when: {when}")
    nodes["out"] = f"Mean, inputs: [a, b, c]{join and ', join: '}{join}"
    graph = topology(nodes, "x: out.x").graph
    counters, scripts = WorkerCounters("w"), {name: ScriptedHandler() for name in "abc"}
    making = StepMaking(graph, counters)
    async with AsyncExitStack() as lifetime:
        out = out or await build_node(graph, graph.node("out"), "w", lifetime)
        steps = [making.of(node, scripts.get(node.name, out)) for node in graph.nodes]
        found = Joined(Executor(steps, graph.inputs, graph.outputs), counters, scripts)
        yield found
    assert found.clock.planned == 0


async def test_a_join_that_had_everything_is_told_only_to_whoever_asked_for_a_report() -> None:
    async with joining("") as given:
        for timings in (None, []):
            asking = await given.ask(1, 2, timings=timings)
            await given.reply("a", "b", "c")
            await asking
        answered = tuple(BranchOutcome(name, BranchState.ANSWERED, 2) for name in "abc")
        assert given.joins == [JoinOutcome("out", answered)]
        assert [given.counts(name) for name in "abc"] == [(2, 0, 0, 0)] * 3


async def test_a_branch_that_failed_is_told_with_its_error_and_one_that_was_late_as_such() -> None:
    async with joining("{quorum: 1, deadline: 80ms}") as given:
        asking = await given.ask(1, 2)
        await given.fail("a")
        await given.clock.advance(0.25 / 16)
        await given.reply("b")
        await given.clock.advance(0.08)
        await asking
        ((a, b, c),) = [join.branches for join in given.joins]
        assert a == BranchOutcome("a", BranchState.FAILED, 0, Unavailable("gone", node="a", request_id="r"))
        assert b == BranchOutcome("b", BranchState.ANSWERED, 2)
        assert c == BranchOutcome("c", BranchState.LATE, 0, DeadlineExceeded("was not there in time", node="c"))
        assert given.joins[0].partial
        assert [given.counts(name) for name in "abc"] == [(0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0)]


async def test_a_branch_whose_own_time_ran_out_was_late_and_did_not_fail() -> None:
    async with joining("{quorum: 2, deadline: 1s, timeouts: {c: 50ms}}") as given:
        asking = await given.ask(1)
        await given.clock.advance(0.05)
        await given.reply("a", "b")
        await asking
        assert given.states == [{"a": "answered", "b": "answered", "c": "late"}]


async def test_of_a_first_join_those_that_lost_were_late() -> None:
    async with joining("first") as given:
        asking = await given.ask(1)
        await given.reply("b")
        await asking
        assert given.states == [{"a": "late", "b": "answered", "c": "late"}]


async def test_a_branch_that_had_no_row_for_the_join_is_no_reason_to_tell() -> None:
    async with joining("{quorum: 2}", when="x > 5") as given:
        asking = await given.ask(1, 2)
        await given.reply("a", "b")
        await asking
        assert given.joins == []
        asking = await given.ask(1, 9, timings=[])
        await given.reply("c", "a", "b")
        await asking
        assert given.joins == [
            JoinOutcome(
                "out",
                (
                    BranchOutcome("a", BranchState.ANSWERED, 2),
                    BranchOutcome("b", BranchState.ANSWERED, 2),
                    BranchOutcome("c", BranchState.ANSWERED, 1),
                ),
            )
        ]
        assert given.counts("c") == (1, 0, 0, 1)


async def test_a_request_without_rows_is_answered_by_every_branch() -> None:
    async with joining("{quorum: 1, deadline: 1s}") as given:
        asking = await given.ask()
        await given.reply("a", "b", "c")
        await asking
        assert [given.counts(name) for name in "abc"] == [(1, 0, 0, 0)] * 3


async def test_how_far_branches_are_behind_the_first_is_measured_and_for_late_ones_until_the_join_ran() -> None:
    async with joining("{quorum: 2, deadline: 1s}") as given:
        for late in (False, True):
            asking = await given.ask(1)
            await given.clock.advance(0.125)
            await given.reply("b")
            await given.clock.advance(0.25)
            await given.reply("a")
            if late:
                await given.clock.advance(0.625)
            else:
                await given.clock.advance(0.5)
                await given.reply("c")
            await asking
        found = {name: (one.behind_s, one.max_behind_s) for name, one in given.counted.items()}
        assert found == {"a": (0.5, 0.25), "b": (0.0, 0.0), "c": (0.75 + 0.875, 0.875)}
        assert given.counts("c") == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("join", "c"),
    [("{quorum: 2}", (0, 0, 1, 0)), ("{required: [a]}", (0, 0, 1, 0)), ("{quorum: 3, deadline: 1s}", (0, 0, 1, 0))],
)
async def test_a_join_that_could_not_run_counts_its_branches_and_tells_no_report(
    join: str, c: tuple[int, int, int, int]
) -> None:
    async with joining(join) as given:
        asking = await given.ask(1)
        if "quorum: 3" in join:
            await given.reply("a", "b")
            await given.clock.advance(1.0)
        else:
            await given.fail("b")
            await given.fail("a")
        assert isinstance(asking.exception(), RequestError)
        assert given.joins == []
        expected = (1, 0, 0, 0) if "quorum: 3" in join else (0, 1, 0, 0)
        assert [given.counts("a"), given.counts("b")] == [expected, expected]
        assert given.counts("c") == c


async def test_a_join_that_needs_every_branch_and_lost_one_counts_nothing() -> None:
    async with joining("") as given:
        asking = await given.ask(1)
        await given.reply("b")
        await given.fail("a")
        assert asking.exception() == Unavailable("gone", node="a", request_id="r")
        assert [given.counts(name) for name in "abc"] == [(0, 0, 0, 0)] * 3


async def test_a_join_that_ran_and_failed_has_counted_its_branches_once() -> None:
    async def fail(branches: Branches, context: Context, /) -> Tensors:
        raise NodeFailed("x")

    async with joining("{quorum: 2}", out=fail) as given:
        asking = await given.ask(1)
        await given.reply("a", "b")
        assert isinstance(asking.exception(), NodeFailed)
        assert [given.counts(name) for name in "abc"] == [(1, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0)]
