from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from mesh.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    NotFound,
    Overloaded,
    RequestError,
    Unavailable,
)
from mesh.layers import Breaker
from mesh.tensors import Tensors
from mesh.testing import settle
from tests.unit.layers.given import Asking, rows

IN_A_ROW = Breaker(failures=3, error_rate=None, open_for_s=5.0)
BY_RATE = Breaker(failures=None, error_rate=0.5, min_calls=4, window_s=10.0, open_for_s=5.0)
GOOD = rows(1)
BAD = Unavailable("gone")


class Node(Asking):
    """A layer around a node that ends each call as the test says."""

    async def end(self, *outcomes: Tensors | BaseException) -> None:
        """Calls one after another, each of which has to reach the node."""
        for outcome in outcomes:
            call = await self.ask(rows(1))
            running = await self.running()
            running.reply(outcome) if isinstance(outcome, Tensors) else running.fail(outcome)
            await asyncio.gather(call, return_exceptions=True)

    async def refused(self) -> Unavailable:
        """The error of a call that does not reach the node."""
        before = len(self.script.calls)
        with pytest.raises(Unavailable) as caught:
            await self.handler(rows(1), self.context("late"))
        assert len(self.script.calls) == before
        return caught.value


async def test_so_many_failures_in_a_row_open_it_and_calls_are_refused_at_once_with_a_hint() -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD, BAD)
    error = await node.refused()
    assert (error.request_id, error.retry_after_s) == ("late", 5.0)
    await node.clock.advance(2.0)
    assert (await node.refused()).retry_after_s == 3.0
    assert node.clock.planned == 0


async def test_a_success_begins_the_row_again() -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD, GOOD, BAD, BAD, GOOD, BAD, BAD)
    await node.end(GOOD)


@pytest.mark.parametrize(
    "bad",
    [
        Unavailable("gone"),
        NodeFailed("why"),
        DeadlineExceeded("slow"),
        LookupError("foreign"),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
async def test_what_speaks_against_the_node_counts(bad: BaseException) -> None:
    node = Node(IN_A_ROW)
    await node.end(bad, bad, bad)
    await node.refused()


@pytest.mark.parametrize(
    "neutral", [InvalidInput("why"), NotFound("why"), Overloaded("full"), Cancelled("gone")], ids=repr
)
async def test_what_says_nothing_of_the_node_counts_neither_way(neutral: RequestError) -> None:
    node = Node(IN_A_ROW)
    await node.end(*[neutral] * 10)
    await node.end(BAD, BAD, neutral, BAD)
    await node.refused()
    rate = Node(BY_RATE)
    await rate.end(*[neutral] * 10, BAD, BAD, BAD)
    await rate.end(BAD)
    await rate.refused()


async def test_callers_that_leave_count_neither_way() -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD)
    for _ in range(5):
        call = await node.ask(rows(1))
        call.cancel()
        await settle()
        assert (await node.running()).cancelled
    await node.end(BAD)
    await node.refused()


async def test_a_caller_whose_own_time_ran_out_says_nothing_of_the_node() -> None:
    node = Node(IN_A_ROW)
    for slack_s in (0.0, 0.004):
        for _ in range(3):
            call = await node.ask(rows(1), node.context(within_s=1.0))
            await node.clock.advance(1.0 - slack_s)
            (await node.running()).fail(DeadlineExceeded("late"))
            with pytest.raises(DeadlineExceeded):
                await call
    for _ in range(3):
        call = await node.ask(rows(1), node.context(within_s=1.0))
        await node.clock.advance(0.5)
        (await node.running()).fail(DeadlineExceeded("its share ran out"))
        with pytest.raises(DeadlineExceeded):
            await call
    await node.refused()


# The error rate.


async def test_a_share_of_failures_opens_it_and_not_before_there_are_enough_calls() -> None:
    node = Node(BY_RATE)
    await node.end(BAD, BAD, BAD)
    await node.end(GOOD)
    await node.end(GOOD, GOOD, GOOD, BAD)
    await node.refused()


async def test_a_smaller_share_of_failures_leaves_it_closed() -> None:
    node = Node(BY_RATE)
    await node.end(GOOD, GOOD, *[GOOD, BAD] * 50)
    await node.end(GOOD)


async def test_failures_that_have_left_the_window_do_not_count() -> None:
    node = Node(BY_RATE)
    await node.end(BAD, BAD, BAD)
    await node.clock.advance(10.0)
    await node.end(GOOD, BAD, GOOD)
    await node.end(BAD)
    await node.refused()


async def test_the_window_is_as_long_as_it_says_to_a_tenth() -> None:
    node = Node(BY_RATE)
    await node.end(BAD, BAD, BAD)
    await node.clock.advance(9.0 - 0.001)
    await node.end(BAD)
    await node.refused()


# Half open.


async def test_after_its_time_one_probe_goes_and_closes_it() -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD, BAD)
    await node.clock.advance(5.0)
    probe = await node.ask(rows(1))
    running = await node.running()
    await node.clock.advance(1.0)
    assert (await node.refused()).retry_after_s == 4.0, "one probe is under way, and has four seconds more"
    running.echo()
    await probe
    await node.end(BAD, BAD, GOOD)


async def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD, BAD)
    for _ in range(3):
        await node.clock.advance(5.0)
        await node.end(BAD)
        assert (await node.refused()).retry_after_s == 5.0
    await node.clock.advance(5.0)
    await node.end(GOOD, BAD, BAD, GOOD)


async def test_as_many_probes_go_as_it_says_and_all_have_to_succeed() -> None:
    node = Node(IN_A_ROW.model_copy(update={"probes": 2}))
    await node.end(BAD, BAD, BAD)
    await node.clock.advance(5.0)
    probes = await node.ask_all([rows(1), rows(2)])
    await node.refused()
    (await node.running()).echo()
    await settle()
    await node.refused()
    (await node.running()).echo()
    await asyncio.gather(*probes)
    await node.end(BAD, BAD, GOOD)


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_probe_that_says_nothing_of_the_node_makes_room_for_another(leaves: bool) -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD, BAD)
    await node.clock.advance(5.0)
    for _ in range(5):
        probe = await node.ask(rows(1))
        running = await node.running()
        probe.cancel() if leaves else running.fail(InvalidInput("why"))
        await settle()
        assert probe.done()
    await node.end(GOOD, BAD, BAD, GOOD)


async def test_a_probe_that_never_ends_does_not_keep_it_shut_for_ever() -> None:
    node = Node(IN_A_ROW)
    await node.end(BAD, BAD, BAD)
    await node.clock.advance(5.0)
    hanging = await node.ask(rows(1))
    running = await node.running()
    await node.clock.advance(5.0)
    await node.end(GOOD)
    running.fail(BAD)
    await asyncio.gather(hanging, return_exceptions=True)
    await node.end(BAD, BAD, GOOD)


async def test_probes_may_be_far_apart() -> None:
    node = Node(IN_A_ROW.model_copy(update={"probes": 2}))
    await node.end(BAD, BAD, BAD)
    for _ in range(2):
        await node.clock.advance(60.0)
        await node.end(GOOD)
    await node.end(BAD, BAD, GOOD)


async def test_calls_from_before_it_opened_say_nothing_of_what_came_after() -> None:
    node = Node(IN_A_ROW)
    old = await node.ask_all([rows(number) for number in range(6)])
    running = [await node.running() for _ in old]
    await node.end(BAD, BAD, BAD)
    running[0].echo()
    await settle()
    await node.refused()
    await node.clock.advance(5.0)
    probe = await node.ask(rows(1))
    running[1].fail(Unavailable("old"))
    running[2].echo()
    await settle()
    assert (await node.refused()).retry_after_s == 5.0, "still half open"
    (await node.running()).echo()
    await probe
    for call in running[3:]:
        call.fail(Unavailable("old"))
    await settle()
    await node.end(GOOD)
    await asyncio.gather(*old, return_exceptions=True)


def test_the_file_says_times_with_units_and_null_where_a_reason_is_not_wanted() -> None:
    written = {"failures": None, "window": "30s", "open_for": "500ms"}
    read = Breaker.model_validate(written, context={"from_file": True})
    assert read == Breaker(failures=None, window_s=30.0, open_for_s=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"failures": None, "error_rate": None},
        {"error_rate": 1.1},
        {"error_rate": 0.0},
        {"window": 0.0},
        {"min_calls": 0},
        {"open_for": 0.0},
        {"probes": 0},
        {"rate": 0.5},
    ],
    ids=repr,
)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Breaker.model_validate(wrong)
