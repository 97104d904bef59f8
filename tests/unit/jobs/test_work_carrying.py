"""What a worker makes of one delivery, however its attempt goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, Overloaded, RequestError, Unavailable
from mesh.jobs.records import Lane, Work
from mesh.jobs.store.job_store import Lease
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.carrying import CUT_OFF_S, Carrier, TaskRunner, WorkPolicy
from mesh.jobs.work.counts import WorkCounter, WorkCounts
from mesh.testing import settle
from tests.unit.jobs.held import ScriptedDelivery, ScriptedLease
from tests.unit.runtime.given import Flow, flow, numbers, topology, values

ONE = {"out": "Affine, inputs: {x: x}"}
BRANCHES = {"a": "Affine, inputs: {x: x}", "b": "Affine, inputs: {x: x}", "out": "Mean, inputs: [a, b]"}
LEASE_S = 30.0
NOW = 1_700_000_000.0


class Carried:
    """A delivery that is being carried out, on a manual clock."""

    def __init__(
        self,
        given: Flow,
        nodes: Mapping[str, str],
        lease: ScriptedLease,
        *,
        tasks: Mapping[Lane, TaskRunner] | None = None,
        attempts: int = 5,
        policy: WorkPolicy | None = None,
        delivery: ScriptedDelivery | None = None,
    ) -> None:
        self.counter = WorkCounter()
        self.given = given
        start = given.clock.now()
        self.carrier = Carrier(
            GraphRun(topology(nodes, "x: out.x").graph, given.executor),
            worker="jobs-0/1",
            attempts=attempts,
            lease_s=LEASE_S,
            policy=policy or WorkPolicy(backoff=Backoff(first_s=0, most_s=0)),
            tasks=tasks or {},
            counter=self.counter,
            clock=given.clock,
            wall=lambda: NOW + given.clock.now() - start,
            chance=random.Random(1),
        )
        self.lease = lease
        self.task = asyncio.ensure_future(self.carrier(delivery or ScriptedDelivery(lease)))

    async def end(self, **counted: int) -> tuple[str, object] | None:
        """How the attempt ended, which it has to by now."""
        await settle()
        assert self.task.done()
        await self.task
        assert self.counter.counts == WorkCounts(**counted)
        return self.lease.end


def work(**changes: object) -> Work:
    return Work(**{"inputs": numbers(1, 2), "request_id": "r", **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def carrying(lease: ScriptedLease, **how: object) -> AsyncGenerator[Carried]:
    async with flow(ONE, scripted=("out",)) as given:
        yield Carried(given, ONE, lease, **how)  # type: ignore[arg-type]


async def test_an_answer_is_the_result() -> None:
    async with carrying(ScriptedLease(work(parameters={"p": 1}))) as one:
        call = await one.given.called("out")
        assert call.context.parameters == {"p": 1}
        assert call.context.request_id == "r"
        call.reply(numbers(3, 4))
        assert await one.end(begun=1, done=1) == ("done", (numbers(3, 4), None, b""))


async def test_a_report_is_part_of_it_where_it_was_asked_for() -> None:
    async with flow(ONE) as given:
        one = Carried(given, ONE, ScriptedLease(work(report=True)))
        end = await one.end(begun=1, done=1)
    assert end is not None
    _, (_, report, _) = end  # type: ignore[misc]
    assert [timing.node for timing in report.node_timings] == ["out"]


async def test_what_branches_give_is_told_while_it_runs() -> None:
    async with flow(BRANCHES, scripted="ab") as given:
        one = Carried(given, BRANCHES, ScriptedLease(work(), number=2))
        await given.reply("b", 3, 4)
        (told,) = one.lease.told
        assert (told.attempt, told.node, values(told.outputs)) == (2, "b", [3, 4])
        await given.reply("a", 5, 6)
        assert await one.end(begun=1, done=1) == ("done", (numbers(4, 5), None, b""))


async def test_what_may_pass_is_followed_by_another_attempt() -> None:
    async with carrying(ScriptedLease(work())) as one:
        await one.given.fail("out", Overloaded("full", retry_after_s=7))
        error = Overloaded("full", retry_after_s=7, node="out", request_id="r")
        assert await one.end(begun=1, retried=1) == ("retry", (error, 7))


async def test_the_last_attempt_fails_the_job() -> None:
    async with carrying(ScriptedLease(work(), number=5)) as one:
        await one.given.fail("out", Unavailable("gone"))
        error = Unavailable("gone", node="out", request_id="r")
        assert await one.end(begun=1, failed=1) == ("fail", error)


@pytest.mark.parametrize("raised", [InvalidInput("no"), NodeFailed("broken")])
async def test_what_stays_as_it_is_fails_the_job(raised: RequestError) -> None:
    async with carrying(ScriptedLease(work())) as one:
        await one.given.fail("out", raised)
        end = await one.end(begun=1, failed=1)
    assert end is not None
    assert end[0] == "fail"
    assert type(end[1]) is type(raised)


async def test_what_no_graph_can_take_fails_the_job() -> None:
    async with carrying(ScriptedLease(work(inputs=None))) as one:
        end = await one.end(begun=1, failed=1)
    assert end is not None
    assert isinstance(end[1], InvalidInput)


async def test_the_lease_is_extended_while_it_runs_and_not_after() -> None:
    async with carrying(ScriptedLease(work())) as one:
        await one.given.clock.advance(10 * LEASE_S)
        assert one.lease.beats == 30
        await one.given.reply("out", 3, 4)
        await one.end(begun=1, done=1)
        await one.given.clock.advance(LEASE_S)
        assert one.lease.beats == 30


async def test_a_job_that_is_cancelled_is_stopped_and_nothing_is_written() -> None:
    async with carrying(ScriptedLease(work())) as one:
        call = await one.given.called("out")
        one.lease.cancelled.set()
        assert await one.end(begun=1, lost=1) is None
        assert call.cancelled


async def test_a_job_that_another_worker_has_is_stopped() -> None:
    lease = ScriptedLease(work())
    lease.lost_at = 2
    async with carrying(lease) as one:
        call = await one.given.called("out")
        await one.given.clock.advance(LEASE_S)
        assert await one.end(begun=1, lost=1) is None
        assert call.cancelled


async def test_a_late_result_is_counted_for_nothing() -> None:
    lease = ScriptedLease(work())
    lease.taken = False
    async with carrying(lease) as one:
        await one.given.reply("out", 3, 4)
        await one.end(begun=1, lost=1)


async def test_a_worker_that_leaves_gives_the_job_back() -> None:
    async with carrying(ScriptedLease(work())) as one:
        call = await one.given.called("out")
        one.carrier.leave()
        assert await one.end(begun=1, released=1) == ("release", None)
        assert call.cancelled


async def test_a_result_that_waits_for_the_store_when_the_worker_leaves_is_handed_in() -> None:
    lease = ScriptedLease(work())
    lease.refusals = [Unavailable("gone")] * 3
    async with carrying(lease) as one:
        await one.given.reply("out", 3, 4)
        one.carrier.leave()
        await one.given.clock.advance(10)
        assert await one.end(begun=1, done=1) == ("done", (numbers(3, 4), None, b""))


async def test_a_result_waits_for_a_store_that_is_gone_and_its_lease_is_held_meanwhile() -> None:
    lease = ScriptedLease(work())
    lease.refusals = [Unavailable("gone")] * 40
    async with carrying(lease) as one:
        await one.given.reply("out", 3, 4)
        await one.given.clock.advance(100)
        assert await one.end(begun=1, done=1) == ("done", (numbers(3, 4), None, b""))
    assert lease.beats > 0


async def test_a_store_that_is_gone_for_too_long_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    lease = ScriptedLease(work())
    lease.refusals = [Unavailable("gone")] * 10_000
    policy = WorkPolicy(patience_s=20)
    async with carrying(lease, policy=policy) as one:
        await one.given.reply("out", 3, 4)
        await one.given.clock.advance(21)
        assert await one.end(begun=1, lost=1) is None
    assert "the store was gone for too long" in caplog.text


async def test_a_result_that_is_too_large_fails_the_job() -> None:
    lease = ScriptedLease(work())
    lease.refusals = [InvalidInput("gives too much")]
    async with carrying(lease) as one:
        await one.given.reply("out", 3, 4)
        assert await one.end(begun=1, failed=1) == ("fail", InvalidInput("gives too much"))


async def test_an_end_that_the_store_never_takes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    lease = ScriptedLease(work())
    lease.refusals = [InvalidInput("no"), InvalidInput("and no")]
    async with carrying(lease) as one:
        await one.given.reply("out", 3, 4)
        assert await one.end(begun=1, lost=1) is None
    assert "the store does not take its end: and no" in caplog.text


async def test_an_attempt_that_takes_too_long_is_followed_by_another() -> None:
    async with carrying(ScriptedLease(work()), policy=WorkPolicy(attempt_timeout_s=100)) as one:
        call = await one.given.called("out")
        await one.given.clock.advance(100)
        end = await one.end(begun=1, retried=1)
        assert call.cancelled
    assert end is not None
    assert end[0] == "retry"


async def test_a_job_whose_deadline_passes_has_failed() -> None:
    async with carrying(ScriptedLease(work(deadline=NOW + 60))) as one:
        await one.given.clock.advance(59)
        assert not one.task.done()
        await one.given.clock.advance(1)
        end = await one.end(begun=1, failed=1)
    assert end is not None
    assert isinstance(end[1], DeadlineExceeded)


async def test_work_that_cannot_be_cancelled_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    go = asyncio.Event()

    async def stubborn(task: bytes, lease: Lease) -> bytes:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        raise RuntimeError("nobody hears")

    lease = ScriptedLease(work(lane=Lane.SHARD, inputs=None))
    async with carrying(lease, tasks={Lane.SHARD: stubborn}) as one:
        await settle()
        lease.cancelled.set()
        await settle()
        assert not one.task.done()
        await one.given.clock.advance(CUT_OFF_S)
        assert await one.end(begun=1, lost=1) is None
        assert "went on though cancelled" in caplog.text
        go.set()


async def test_a_delivery_with_nothing_to_do_is_nothing() -> None:
    lease = ScriptedLease(work())
    async with carrying(lease, delivery=ScriptedDelivery(lease, lambda: None)) as one:
        assert await one.end() is None


async def test_a_delivery_that_cannot_be_begun_is_left_to_its_lease(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> None:
        raise Unavailable("gone")

    lease = ScriptedLease(work())
    async with carrying(lease, delivery=ScriptedDelivery(lease, gone)) as one:
        assert await one.end() is None
    assert "left to its lease: gone" in caplog.text


async def ran(task: TaskRunner, **counted: int) -> tuple[str, object] | None:
    """How a shard ends."""
    lease = ScriptedLease(work(lane=Lane.SHARD, inputs=None, task=b"rows 1 to 5"))
    async with carrying(lease, tasks={Lane.SHARD: task}) as one:
        return await one.end(**counted)


async def test_a_task_is_run_by_whoever_runs_its_lane() -> None:
    async def run(task: bytes, lease: Lease) -> bytes:
        assert lease.number == 1
        return task[::-1]

    assert await ran(run, begun=1, done=1) == ("done", (None, None, b"5 ot 1 swor"))


async def test_a_task_that_raises_something_of_its_own_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def run(task: bytes, lease: Lease) -> bytes:
        raise KeyError("secret")

    end = await ran(run, begun=1, failed=1)
    assert end == (
        "fail",
        NodeFailed("the attempt raised KeyError; the log of worker jobs-0/1 has the cause", request_id="r"),
    )
    assert "secret" in caplog.text


async def test_a_task_that_is_cancelled_by_nobody_has_failed() -> None:
    async def run(task: bytes, lease: Lease) -> bytes:
        raise asyncio.CancelledError

    end = await ran(run, begun=1, failed=1)
    assert end is not None
    assert "CancelledError" in str(end[1])


async def test_a_worker_that_is_cancelled_leaves_nothing_behind() -> None:
    async with carrying(ScriptedLease(work())) as one:
        call = await one.given.called("out")
        one.task.cancel()
        await asyncio.wait((one.task,))
        assert call.cancelled
        assert one.lease.end is None
