"""Joins and their policies, each with branches that are slow, hang, die, or answer wrongly."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress

import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import DeadlineExceeded, NodeFailed, RequestError, Unavailable
from mesh.runtime import run
from mesh.tensors import Tensors
from mesh.testing import settle
from tests.unit.runtime.given import Flow, flow, numbers, values

DEAD = Unavailable("the worker cannot be reached")
WRONG = {
    "dies": (DEAD, DEAD),
    "raises": (RuntimeError("of its own"), NodeFailed("the node raised RuntimeError; the worker's log has the cause")),
    "cancels itself": (
        asyncio.CancelledError(),
        NodeFailed("the node raised CancelledError; the worker's log has the cause"),
    ),
    "a row too few": (numbers(1), NodeFailed("gave a tensor 'x' of shape [1] for 2 rows", tensor="x")),
    "no tensor": (Tensors({"y": np.zeros(2)}), NodeFailed("gave no tensor 'x'", tensor="x")),
}
"""What a branch does -> how its error is told, but for its node and request."""


def nodes(join: str, branches: str = "a b c") -> dict[str, str]:
    names = branches.split()
    return {
        **dict.fromkeys(names, "Affine, inputs: {x: x}"),
        "out": f"Mean, inputs: [{', '.join(names)}]{join and ', join: '}{join}",
    }


async def end(given: Flow, node: str, how: str) -> None:
    """Let a branch end wrongly."""
    what, _ = WRONG[how]
    call = await given.called(node)
    if isinstance(what, Tensors):
        call.reply(what)
    else:
        call.fail(type(what)(*what.args) if not isinstance(what, RequestError) else Unavailable(what.text))
    await settle()


def told(how: str, node: str) -> RequestError:
    _, error = WRONG[how]
    return type(error)(error.text, node=node, tensor=error.tensor, request_id="r")


async def failed(task: asyncio.Task[Tensors]) -> RequestError:
    """Why a call was not answered, which has to be known by now."""
    await settle()
    assert task.done(), "it still runs"
    error = task.exception()
    assert isinstance(error, RequestError)
    return error


# All, which is what a join does unless it says otherwise.


async def test_branches_run_side_by_side_and_all_are_waited_for() -> None:
    async with flow(nodes(""), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("c", 1, 2)
        await given.reply("a", 4, 5)
        assert not asking.done()
        await given.reply("b", 7, 8)
        assert values(await asking) == [4, 5]


@pytest.mark.parametrize("how", WRONG)
async def test_a_branch_that_is_needed_and_fails_ends_the_request_at_once_and_the_others(how: str) -> None:
    async with flow(nodes(""), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await end(given, "b", how)
        assert await failed(asking) == told(how, "b")
        assert given.scripts["a"].calls[0].cancelled
        assert given.scripts["c"].calls[0].cancelled


async def test_a_caller_that_goes_away_cancels_every_branch() -> None:
    async with flow(nodes("{quorum: 2, deadline: 1s, timeouts: {a: 500ms}}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("b", 1, 2)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        assert [given.scripts[name].calls[0].cancelled for name in "abc"] == [True, False, True]


# The first.


async def test_of_a_first_join_the_fastest_wins_and_the_rest_are_cancelled() -> None:
    async with flow(nodes("first"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("b", 7, 8)
        assert values(await asking) == [7, 8]
        assert [given.scripts[name].calls[0].cancelled for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("how", WRONG)
async def test_a_first_join_goes_on_without_branches_that_fail(how: str) -> None:
    async with flow(nodes("first"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await end(given, "b", how)
        await end(given, "c", how)
        assert not asking.done()
        await given.reply("a", 7, 8)
        assert values(await asking) == [7, 8]


async def test_a_first_join_of_which_every_branch_fails_ends_in_the_first_error() -> None:
    async with flow(nodes("first"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await end(given, "c", "dies")
        await end(given, "b", "raises")
        assert not asking.done()
        await end(given, "a", "no tensor")
        assert await failed(asking) == told("dies", "c")


async def test_what_only_a_loser_needed_is_cancelled_and_what_others_need_is_not() -> None:
    flowing = {
        "shared": "Affine, inputs: {x: x}",
        "own": "Affine, inputs: {x: x}",
        "slow": "Add, inputs: {a: own.x, b: shared.x}",
        "quick": "Affine, inputs: {x: x}",
        "first": "FirstOf, inputs: [slow, quick], join: first",
        "out": "Mean, inputs: [first, shared]",
    }
    async with flow(flowing, scripted=["shared", "own", "quick", "slow"]) as given:
        asking = await given.ask(1, 2)
        await given.reply("quick", 3, 3)
        assert given.scripts["own"].calls[0].cancelled
        assert not given.scripts["shared"].calls[0].cancelled
        await given.reply("shared", 5, 7)
        assert values(await asking) == [4, 5]
        assert given.calls("slow") == 0


async def test_a_first_join_waits_until_every_row_is_on_a_branch_that_is_there() -> None:
    flowing = {
        "low": 'Affine, inputs: {x: x}, when: "x < 5"',
        "high": 'Affine, inputs: {x: x}, when: "not x < 5"',
        "slow": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [low, high, slow], join: first",
    }
    async with flow(flowing, scripted=["low", "high", "slow"]) as given:
        asking = await given.ask(1, 9)
        await given.reply("low", 10)
        assert not asking.done()
        await given.reply("high", 90)
        assert values(await asking) == [10, 90]
        assert given.scripts["slow"].calls[0].cancelled
        # Rows of one branch alone: the other has nothing to say, and is not waited for.
        asking = await given.ask(2, 3)
        await given.reply("low", 20, 30)
        assert values(await asking) == [20, 30]


# Quorum.


async def test_a_quorum_answers_once_so_many_branches_are_there() -> None:
    async with flow(nodes("{quorum: 2}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("c", 1, 2)
        assert not asking.done()
        await given.reply("a", 3, 4)
        assert values(await asking) == [2, 3]
        assert given.scripts["b"].calls[0].cancelled


@pytest.mark.parametrize("how", WRONG)
async def test_a_quorum_does_without_a_branch_and_fails_when_it_can_not_be_reached(how: str) -> None:
    async with flow(nodes("{quorum: 2}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await end(given, "b", how)
        await given.reply("a", 1, 2)
        await given.reply("c", 3, 4)
        assert values(await asking) == [2, 3]
        asking = await given.ask(1, 2)
        await end(given, "b", how)
        await end(given, "a", "dies")
        assert await failed(asking) == told(how, "b")
        assert given.scripts["c"].calls[-1].cancelled


async def test_a_required_branch_is_waited_for_though_the_quorum_is_there() -> None:
    async with flow(nodes("{quorum: 1, required: [b]}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("a", 1, 2)
        await given.fail("c", Unavailable("gone"))
        assert not asking.done()
        await given.reply("b", 3, 4)
        assert values(await asking) == [2, 3]


async def test_a_required_branch_that_fails_fails_the_join_whatever_else_is_there() -> None:
    async with flow(nodes("{quorum: 1, required: [b]}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("a", 1, 2)
        await end(given, "b", "dies")
        assert await failed(asking) == told("dies", "b")
        assert given.scripts["c"].calls[0].cancelled


# Deadlines and timeouts.


async def test_at_its_deadline_a_join_answers_from_the_branches_that_are_there() -> None:
    async with flow(nodes("{deadline: 80ms}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("a", 1, 2)
        await given.clock.advance(0.07)
        await given.reply("b", 3, 4)
        assert not asking.done()
        await given.clock.advance(0.02)
        assert values(await asking) == [2, 3]
        assert given.scripts["c"].calls[0].cancelled


async def test_a_join_with_a_deadline_does_not_wait_for_it_once_every_branch_has_ended() -> None:
    async with flow(nodes("{deadline: 80ms}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("a", 1, 2)
        await given.reply("b", 3, 4)
        await end(given, "c", "dies")
        assert values(await asking) == [2, 3]


async def test_at_its_deadline_a_join_without_enough_branches_says_which_are_missing() -> None:
    async with flow(nodes("{deadline: 80ms, quorum: 2}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.reply("b", 3, 4)
        await given.clock.advance(0.08)
        error = DeadlineExceeded("1 of 2 branches were there in time; missing: a, c", node="out", request_id="r")
        assert await failed(asking) == error


async def test_a_deadline_counts_from_the_arrival_also_for_a_join_further_down() -> None:
    flowing = {
        "before": "Affine, inputs: {x: x}",
        "a": "Affine, inputs: {x: before.x}",
        "b": "Affine, inputs: {x: before.x}",
        "out": "Mean, inputs: [a, b], join: {deadline: 80ms}",
    }
    async with flow(flowing, scripted=["before", "a", "b"]) as given:
        asking = await given.ask(1)
        await given.clock.advance(0.07)
        await given.reply("before", 1)
        await given.reply("a", 5)
        await given.clock.advance(0.01)
        assert values(await asking) == [5]


async def test_a_branch_past_its_timeout_is_not_waited_for_and_the_policy_decides() -> None:
    async with flow(nodes("{quorum: 2, deadline: 1s, timeouts: {b: 50ms, c: 70ms}}"), scripted="abc") as given:
        asking = await given.ask(1, 2)
        await given.clock.advance(0.05)
        assert given.scripts["b"].calls[0].cancelled
        await given.reply("a", 1, 2)
        assert not asking.done()
        await given.reply("c", 3, 4)
        assert values(await asking) == [2, 3]
        # Too late for the quorum: the request ends with the branch.
        asking = await given.ask(1, 2)
        await given.clock.advance(0.07)
        assert await failed(asking) == DeadlineExceeded("was not there in time", node="b", request_id="r")
        assert given.scripts["a"].calls[1].cancelled


async def test_an_aggregate_is_told_why_a_branch_is_not_there() -> None:
    async with flow(
        nodes("{quorum: 1, deadline: 1s, timeouts: {a: 50ms}}", "a b c d"), scripted=[*"abcd", "out"]
    ) as given:
        asking = await given.ask(1)
        await end(given, "b", "dies")
        await given.reply("d", 4)
        await given.clock.advance(1)
        call = await given.called("out")
        late = [DeadlineExceeded("was not there in time", node=name) for name in "ac"]
        branches = call.request
        assert list(branches) == list("abcd")
        assert branches["b"] == told("dies", "b")
        assert [branches["a"], branches["c"]] == late
        call.reply(numbers(4))
        assert values(await asking) == [4]


async def test_a_failing_branch_of_an_optional_branch_reaches_the_join_as_its_error() -> None:
    flowing = {
        "before": "Affine, inputs: {x: x}",
        "a": "Affine, inputs: {x: before.x}",
        "b": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [a, b], join: {required: [b]}",
    }
    async with flow(flowing, scripted=["before", "a", "b"]) as given:
        asking = await given.ask(1)
        await end(given, "before", "dies")
        await given.reply("b", 7)
        assert values(await asking) == [7]
        assert given.calls("a") == 0


async def test_joins_of_joins_and_outputs_beside_them() -> None:
    flowing = {
        "a": "Affine, inputs: {x: x}",
        "b": "Affine, inputs: {x: x}",
        "c": "Affine, inputs: {x: x}",
        "inner": "FirstOf, inputs: [a, b], join: first",
        "out": "Mean, inputs: [inner, c], join: {quorum: 1, deadline: 100ms}",
    }
    async with flow(flowing, "x: out.x, a: a.x", scripted="abc") as given:
        asking = await given.ask(1)
        await given.reply("b", 2)
        # It lost, but is an output as well.
        assert not given.scripts["a"].calls[0].cancelled
        await given.clock.advance(0.1)
        assert given.scripts["c"].calls[0].cancelled
        assert not asking.done()
        await given.reply("a", 9)
        found = await asking
        assert (values(found), values(found, "a")) == ([2], [9])


async def test_an_output_that_fails_fails_the_request_and_cancels_the_rest() -> None:
    flowing = {
        "a": "Affine, inputs: {x: x}",
        "b": "Affine, inputs: {x: x}",
        "c": "Affine, inputs: {x: b.x}",
    }
    async with flow(flowing, "a: a.x, c: c.x", scripted="abc") as given:
        asking = await given.ask(1)
        await end(given, "a", "dies")
        assert await failed(asking) == told("dies", "a")
        assert given.scripts["b"].calls[0].cancelled
        assert given.calls("c") == 0


async def test_a_deadline_of_the_request_ends_it_before_the_next_step() -> None:
    async with flow(nodes("{quorum: 2}"), scripted="abc") as given:
        context = Context(request_id="r", clock=given.clock, deadline=given.clock.now() + 0.01)
        asking = asyncio.ensure_future(given.executor(numbers(1), context))
        await settle()
        await given.clock.advance(0.01)
        await given.reply("a", 1)
        await given.reply("b", 1)
        assert await failed(asking) == DeadlineExceeded(
            "the deadline passed before the work began", node="out", request_id="r"
        )


async def test_many_requests_of_one_executor_do_not_meet() -> None:
    async with flow(nodes("{quorum: 2}"), scripted="abc") as given:
        asking = [await given.ask(number) for number in range(8)]
        for name in "cba":
            calls = [await given.called(name) for _ in asking] if name != "a" else []
            for call in reversed(calls):
                call.echo()
        assert [values(await one) for one in asking] == [[number] for number in range(8)]


async def test_a_caller_that_goes_away_as_its_request_fails_leaves_no_error_unread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go() -> None:
        async def failing(request: Tensors, context: Context, /) -> Tensors:
            asyncio.get_running_loop().call_soon(asking.cancel)
            raise Unavailable("gone")

        async with flow(nodes("", "a b"), scripted="a", handlers={"b": failing}) as given:
            asking = asyncio.ensure_future(given.answer(1))
            await asyncio.wait((asking,))
            assert asking.cancelled()

    await go()
    gc.collect()
    assert caplog.messages == []


# What does not end when it is told to.


@pytest.mark.parametrize("answers", [True, False])
async def test_a_loser_that_does_not_end_holds_an_answer_up_no_longer_than_a_bound(
    answers: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "CUT_OFF_S", 0.01)
    release = asyncio.Event()

    async def stubborn(request: Tensors, context: Context, /) -> Tensors:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return request

    async with flow(nodes("first", "a b"), scripted="b", handlers={"a": stubborn}) as given:
        asking = await given.ask(1)
        if answers:
            with caplog.at_level(logging.WARNING, "mesh.runtime"):
                await given.reply("b", 2)
                assert values(await asking) == [2]
            assert caplog.messages == ["a went on though cancelled, on request r"]
        else:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            assert asking.cancelled()
        release.set()
