"""The `cache` layer: what is looked up, computed, kept and given, on a clock that stands still."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from pydantic import ValidationError

from mesh.caches import Entry, digest_rows, encode_rows
from mesh.caches.memory import MemoryBackend
from mesh.context import Context, NodeTiming
from mesh.errors import (
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    Overloaded,
    RequestError,
    SetupError,
    Unavailable,
)
from mesh.layers import Cache
from mesh.partial import rows_failed
from mesh.signature import TensorSpec
from mesh.tensors import Tensors
from mesh.testing import ScriptedHandler, settle
from tests.unit.layers.cached import Caching, HeldBackend, NearBackend, RaisingBackend, RubbishBackend
from tests.unit.layers.given import rows, values

HOT = Cache(cache="hot")


async def test_a_row_that_was_answered_is_answered_without_the_handler() -> None:
    asking = Caching(HOT)
    await asking.fill(1.0)
    task = await asking.ask(rows(1.0))
    assert values(await task) == [2.0]
    assert len(asking.script.calls) == 1
    assert asking.counter == {"misses": 1, "hits": 1}


async def test_only_rows_that_are_missing_are_computed_and_all_come_in_order() -> None:
    asking = Caching(HOT)
    await asking.fill(2.0, 4.0)
    task = await asking.ask(rows(1.0, 2.0, 3.0, 4.0, 5.0))
    assert await asking.double() == [1.0, 3.0, 5.0]
    assert values(await task) == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert not (await task)["x"].flags.writeable


async def test_rows_that_come_twice_in_a_batch_are_computed_once() -> None:
    asking = Caching(HOT)
    task = await asking.ask(rows(7.0, 1.0, 7.0, 1.0, 7.0))
    assert await asking.double() == [7.0, 1.0]
    assert values(await task) == [14.0, 2.0, 14.0, 2.0, 14.0]
    assert asking.counter == {"misses": 2, "coalesced": 3}


async def test_answers_come_back_bit_by_bit() -> None:
    answer = Tensors(
        {
            "nan": np.array([[np.nan, -0.0]], np.float32),
            "text": np.array([b"\0caf\xc3\xa9\0"], object),
            "none": np.empty((1, 0, 3), np.int8),
            "flag": np.array([True]),
        }
    )
    asking = Caching(HOT)
    first = await asking.ask(rows(1.0))
    (await asking.running()).reply(answer)
    assert await first == answer
    assert await (await asking.ask(rows(1.0))) == answer


async def test_what_is_at_hand_is_given_at_once_and_counted_as_if_it_had_been_looked_up() -> None:
    asking = Caching(Cache(cache="hot", ttl_s=5.0, stale_s=10.0), NearBackend)
    assert isinstance(asking.backend, NearBackend)
    await asking.fill(1.0, 2.0)
    asking.backend.looked.clear()
    asking.backend.gets.clear()
    assert values(await (await asking.ask(rows(2.0, 1.0, 2.0)))) == [4.0, 2.0, 4.0]
    assert asking.counter == {"misses": 2, "hits": 2, "coalesced": 1}
    assert (await asking.backend.read_stats()).hits == 3
    asking.backend.gets.set()
    await asking.clock.advance(6.0)
    assert values(await (await asking.ask(rows(1.0)))) == [2.0]
    assert asking.backend.looked == [1], "what is stale is looked up, and computed anew"
    assert await asking.double() == [1.0]


async def test_what_is_at_hand_and_no_answer_of_the_node_is_a_miss() -> None:
    asking = Caching(HOT, NearBackend, gives={"x": TensorSpec("FP64", ("rows", 1))})
    await asking.fill(1.0)
    task = await asking.ask(rows(1.0))
    assert await asking.double() == [1.0]
    assert values(await task) == [2.0]
    assert asking.counter == {"misses": 2, "broken": 1}


async def test_a_row_that_is_computed_anew_is_waited_for_though_the_old_one_is_at_hand() -> None:
    asking = Caching(HOT, NearBackend)
    await asking.fill(1.0)
    anew = await asking.ask(rows(1.0), asking.asked("anew", cache="refresh"))
    after = await asking.ask(rows(1.0, 1.0))
    (await asking.running()).reply(rows(7.0))
    assert values(await anew) == [7.0]
    assert values(await after) == [7.0, 7.0]


async def test_a_thousand_callers_of_the_same_row_at_once_are_one_computation() -> None:
    asking = Caching(HOT)
    tasks = await asking.ask_all([rows(1.0)])
    tasks += [asyncio.create_task(_call(asking, str(index))) for index in range(999)]
    await settle()
    assert await asking.double() == [1.0]
    assert [values(answer) for answer in await asyncio.gather(*tasks)] == [[2.0]] * 1000
    assert len(asking.script.calls) == 1
    assert asking.counter == {"misses": 1, "coalesced": 999}


async def _call(asking: Caching, request_id: str) -> Tensors:
    return await asking.handler(rows(1.0), asking.context(request_id))


async def test_callers_at_once_are_one_lookup_too() -> None:
    asking = Caching(HOT)
    await asking.fill(1.0, 2.0)
    assert isinstance(asking.backend, HeldBackend)
    asking.backend.looked.clear()
    asking.backend.gets.clear()
    tasks = [await asking.ask(request) for request in (rows(1.0, 2.0), rows(2.0), rows(2.0, 1.0))]
    asking.backend.gets.set()
    assert [values(answer) for answer in await asyncio.gather(*tasks)] == [[2.0, 4.0], [4.0], [4.0, 2.0]]
    assert asking.backend.looked == [2]


async def test_a_caller_that_goes_away_hands_its_computation_over() -> None:
    asking = Caching(HOT)
    first, second = await asking.ask_all([rows(1.0), rows(1.0)])
    first.cancel()
    await settle()
    assert first.cancelled()
    assert await asking.double() == [1.0]
    assert values(await second) == [2.0]


async def test_a_computation_that_nobody_waits_for_is_cancelled_and_begun_anew() -> None:
    asking = Caching(HOT)
    first, second = await asking.ask_all([rows(1.0), rows(1.0)])
    call = await asking.running()
    first.cancel()
    await settle()
    assert not call.cancelled
    second.cancel()
    await settle()
    assert call.cancelled
    third = await asking.ask(rows(1.0))
    await asking.double()
    assert values(await third) == [2.0]
    assert not asking.made.running


async def test_a_caller_that_goes_away_while_it_looks_up_leaves_the_others_to_look_themselves() -> None:
    asking = Caching(HOT)
    await asking.fill(1.0)
    assert isinstance(asking.backend, HeldBackend)
    asking.backend.gets.clear()
    first, second = await asking.ask_all([rows(1.0), rows(1.0)])
    first.cancel()
    await settle()
    asking.backend.gets.set()
    assert values(await second) == [2.0]
    assert len(asking.script.calls) == 1


@pytest.mark.parametrize("error", [Overloaded("full", retry_after_s=1.0), NodeFailed("broken"), InvalidInput("bad")])
async def test_an_error_reaches_all_who_wait_for_the_row_each_with_its_own(error: RequestError) -> None:
    asking = Caching(HOT)
    tasks = await asking.ask_all([rows(1.0), rows(1.0), rows(1.0)])
    (await asking.running()).fail(error)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [type(error)] * 3
    assert [one.request_id for one in found if isinstance(one, RequestError)] == ["0", "1", "2"]
    assert len({id(one) for one in found}) == 3


async def test_an_error_is_not_remembered() -> None:
    asking = Caching(HOT)
    first = await asking.ask(rows(1.0))
    (await asking.running()).fail(InvalidInput("bad"))
    await settle()
    assert isinstance(first.exception(), InvalidInput)
    second = await asking.ask(rows(1.0))
    await asking.double()
    assert values(await second) == [2.0]


async def test_an_error_that_names_a_row_names_the_callers_row_and_spares_who_wants_others() -> None:
    asking = Caching(HOT)
    await asking.fill(5.0)
    bad = await asking.ask(rows(5.0, 1.0, 2.0))
    good = await asking.ask(rows(1.0))
    also = await asking.ask(rows(9.0, 2.0))
    (await asking.running()).fail(InvalidInput("bad row", row=1))
    await settle()
    assert _row(bad) == 2
    assert _row(also) == 1
    assert (await asking.running()).cancelled, "nobody waits for what else the other one wanted"
    assert await asking.double() == [1.0]
    assert values(await good) == [2.0]


async def test_the_good_rows_of_a_request_with_a_bad_one_are_kept_where_the_node_tells_of_them() -> None:
    asking = Caching(Cache(cache="hot", negative_s=5.0))
    bad = await asking.ask(rows(1.0, 2.0, 3.0, 4.0))
    good = await asking.ask(rows(3.0))
    alone = await asking.ask(rows(4.0))
    down = await asking.ask(rows(5.0, 2.0))
    call = await asking.running()
    assert call.context.partial
    call.fail(rows_failed({1: InvalidInput("two")}, [0, 2], rows(2.0, 6.0), call.context))
    await settle()
    assert bad.exception() == InvalidInput("two", row=1, request_id="r")
    assert down.exception() == InvalidInput("two", row=1, request_id="r")
    assert values(await good) == [6.0]
    assert (await asking.running()).cancelled
    assert await asking.double() == [4.0], "it was left alone"
    assert values(await alone) == [8.0]
    before = len(asking.script.calls)
    assert values(await (await asking.ask(rows(4.0, 3.0, 1.0)))) == [8.0, 6.0, 2.0]
    assert (await asking.ask(rows(1.0, 2.0))).exception() == InvalidInput("two", row=1, request_id="r")
    assert len(asking.script.calls) == before


async def test_a_row_that_failed_by_itself_is_tried_again_by_the_next_though_the_others_are_still_being_kept() -> None:
    asking = Caching(HOT)
    assert isinstance(asking.backend, HeldBackend)
    asking.backend.puts.clear()
    bad = await asking.ask(rows(1.0, 2.0))
    call = await asking.running()
    call.fail(rows_failed({1: Unavailable("gone")}, [0], rows(2.0), call.context))
    await settle()
    assert isinstance(bad.exception(), Unavailable)
    again = await asking.ask(rows(1.0, 2.0))
    assert await asking.double() == [2.0]
    assert values(await again) == [2.0, 4.0]
    asking.backend.puts.set()


def _row(task: asyncio.Task[Tensors]) -> int | None:
    error = task.exception()
    assert isinstance(error, RequestError)
    return error.row


async def test_who_waits_for_a_part_of_a_batch_that_failed_tries_for_himself() -> None:
    asking = Caching(HOT)
    bad = await asking.ask(rows(1.0, 2.0))
    same = await asking.ask(rows(2.0, 1.0, 3.0))
    part = await asking.ask(rows(1.0))
    (await asking.running()).fail(NodeFailed("choked"))
    await settle()
    assert isinstance(bad.exception(), NodeFailed)
    assert isinstance(same.exception(), NodeFailed), "it asked for all that was computed"
    assert (await asking.running()).cancelled
    assert await asking.double() == [1.0]
    assert values(await part) == [2.0]


async def test_time_that_ran_out_for_one_caller_has_not_run_out_for_the_next() -> None:
    asking = Caching(HOT)
    hasty = await asking.ask(rows(1.0), asking.context("hasty", within_s=1.0))
    patient = await asking.ask(rows(1.0), asking.context("patient", within_s=60.0))
    (await asking.running()).fail(DeadlineExceeded("too late"))
    await settle()
    assert isinstance(hasty.exception(), DeadlineExceeded)
    await asking.double()
    assert values(await patient) == [2.0]


async def test_after_its_time_to_live_a_row_is_computed_anew() -> None:
    asking = Caching(Cache(cache="hot", ttl_s=60.0))
    await asking.fill(1.0)
    await asking.clock.advance(59.0)
    assert values(await (await asking.ask(rows(1.0)))) == [2.0]
    await asking.clock.advance(1.0)
    task = await asking.ask(rows(1.0))
    assert await asking.double() == [1.0]
    await task


async def test_a_stale_row_is_given_at_once_and_computed_behind_the_callers_back() -> None:
    asking = Caching(Cache(cache="hot", ttl_s=60.0, stale_s=30.0))
    await asking.fill(1.0, 2.0)
    await asking.clock.advance(61.0)
    for _ in range(3):
        assert values(await (await asking.ask(rows(2.0, 1.0)))) == [4.0, 2.0]
    assert len(asking.script.calls) == 2, "it is refreshed once"
    await asking.running()
    (call := asking.script.calls[-1]).reply(Tensors({"x": call.request["x"] * 3}))
    await settle()
    assert values(await (await asking.ask(rows(1.0, 2.0)))) == [3.0, 6.0]
    assert asking.counter == {"misses": 2, "hits": 8, "stale": 6, "refreshes": 2}


async def test_who_comes_when_what_was_stale_is_gone_waits_for_the_refresh() -> None:
    asking = Caching(Cache(cache="hot", ttl_s=60.0, stale_s=10.0))
    await asking.fill(1.0)
    await asking.clock.advance(61.0)
    await (await asking.ask(rows(1.0)))
    await asking.clock.advance(10.0)
    task = await asking.ask(rows(1.0))
    assert len(asking.script.calls) == 2
    await asking.double()
    assert values(await task) == [2.0]


async def test_refreshes_at_once_are_bounded_and_their_errors_nobodys() -> None:
    asking = Caching(Cache(cache="hot", ttl_s=60.0, stale_s=30.0, max_refreshes=2))
    await asking.fill(1.0, 2.0, 3.0)
    await asking.clock.advance(61.0)
    for number in (1.0, 2.0, 3.0):
        await (await asking.ask(rows(number)))
    calls = asking.script.calls[1:]
    assert [values(call.request) for call in calls] == [[1.0], [2.0]]
    calls[0].fail(NodeFailed("no"))
    await settle()
    assert values(await (await asking.ask(rows(3.0)))) == [6.0]
    assert len(asking.script.calls) == 4
    await asking.made.close()
    assert calls[1].cancelled
    assert asking.clock.planned == 0


async def test_a_refresh_that_does_not_end_is_given_up() -> None:
    asking = Caching(Cache(cache="hot", ttl_s=60.0, stale_s=600.0))
    await asking.fill(1.0)
    await asking.clock.advance(61.0)
    await (await asking.ask(rows(1.0)))
    await asking.clock.advance(31.0)
    assert asking.script.calls[1].cancelled
    assert not asking.made.running


async def test_a_refused_row_is_remembered_as_long_as_is_said() -> None:
    asking = Caching(Cache(cache="hot", negative_s=5.0))
    first = await asking.ask(rows(1.0, 2.0))
    (await asking.running()).fail(InvalidInput("bad", node="node", tensor="x", row=1))
    await settle()
    assert _row(first) == 1
    again = await asking.ask(rows(2.0, 3.0), asking.context("again"))
    error = again.exception()
    assert error == InvalidInput("bad", node="node", tensor="x", row=0, request_id="again")
    await asking.clock.advance(5.0)
    task = await asking.ask(rows(2.0))
    assert await asking.double() == [2.0]
    await task
    assert asking.counter == {"misses": 3, "negative": 1}


async def test_other_errors_are_never_remembered() -> None:
    asking = Caching(Cache(cache="hot", negative_s=5.0))
    for error in (NodeFailed("broken"), Overloaded("full")):
        task = await asking.ask(rows(1.0))
        (await asking.running()).fail(error)
        await settle()
        assert isinstance(task.exception(), type(error))


async def test_a_request_may_skip_the_cache() -> None:
    asking = Caching(HOT)
    await asking.fill(1.0)
    for _ in range(2):
        task = await asking.ask(rows(1.0), asking.asked(cache="skip"))
        assert await asking.double() == [1.0]
        await task
    assert asking.counter == {"misses": 1}


async def test_a_request_may_have_its_rows_computed_anew_and_kept() -> None:
    asking = Caching(HOT)
    await asking.fill(1.0)
    task = await asking.ask(rows(1.0), asking.asked(cache="refresh"))
    call = await asking.running()
    call.reply(rows(7.0))
    assert values(await task) == [7.0]
    assert values(await (await asking.ask(rows(1.0)))) == [7.0]


async def test_what_was_begun_before_a_refresh_does_not_replace_what_it_brought() -> None:
    asking = Caching(HOT)
    old = await asking.ask(rows(1.0))
    new = await asking.ask(rows(1.0), asking.asked(cache="refresh"))
    before, after = [await asking.running() for _ in range(2)]
    after.reply(rows(7.0))
    await settle()
    before.reply(rows(2.0))
    assert (values(await old), values(await new)) == ([2.0], [7.0])
    assert values(await (await asking.ask(rows(1.0)))) == [7.0]


async def test_another_way_to_be_served_is_refused() -> None:
    asking = Caching(HOT)
    task = await asking.ask(rows(1.0), asking.asked("mine", cache="never"))
    error = task.exception()
    assert isinstance(error, InvalidInput)
    assert error.request_id == "mine"
    assert "'skip' or 'refresh'" in error.text


async def test_parameters_count_where_they_are_named() -> None:
    asking = Caching(Cache(cache="hot", parameters=("lang",)))
    for context, computed in [
        (asking.asked(lang="en", other=1), 1),
        (asking.asked(lang="en", other=2), 1),
        (asking.asked(lang="de"), 2),
        (asking.asked(), 3),
    ]:
        task = await asking.ask(rows(1.0), context)
        if asking.script.pending:
            await asking.double()
        await task
        assert len(asking.script.calls) == computed


async def test_inputs_count_where_they_are_named() -> None:
    asking = Caching(Cache(cache="hot", key=("x",)))

    def both(x: float, y: float) -> Tensors:
        return Tensors({"x": np.array([[x]], np.float32), "y": np.array([[y]], np.float32)})

    task = await asking.ask(both(1.0, 1.0))
    await asking.double()
    await task
    assert values(await (await asking.ask(both(1.0, 2.0)))) == [2.0]
    await asking.ask(both(2.0, 1.0))
    assert asking.script.pending == 1


@pytest.mark.parametrize(("backend", "counted"), [(RaisingBackend, {"failures": 4}), (RubbishBackend, {"broken": 4})])
async def test_a_cache_that_fails_has_missed(backend: type[MemoryBackend], counted: dict[str, int]) -> None:
    asking = Caching(HOT, backend)
    for _ in range(2):
        task = await asking.ask(rows(1.0, 2.0))
        assert await asking.double() == [1.0, 2.0]
        assert values(await task) == [2.0, 4.0]
    assert asking.counter == {"misses": 4, **counted}


async def test_what_the_node_could_not_have_given_is_a_miss() -> None:
    asking = Caching(HOT, gives={"x": TensorSpec("FP32", ("rows", 2))})
    (key,) = digest_rows(asking.made.keys, rows(1.0))
    (value,) = encode_rows([key], rows(2.0))
    await asking.backend.put_many(asking.made.namespace, [Entry(key, value)])
    task = await asking.ask(rows(1.0))
    (await asking.running()).reply(answer := Tensors({"x": np.zeros((1, 2), np.float32)}))
    assert await task == answer
    assert await (await asking.ask(rows(1.0))) == answer
    assert asking.counter == {"misses": 1, "broken": 1, "hits": 1}


async def test_rows_that_do_not_fit_together_are_computed_together() -> None:
    asking = Caching(HOT)
    first = await asking.ask(rows(1.0))
    (await asking.running()).reply(Tensors({"x": np.zeros((1, 3), np.float32)}))
    await first
    both = await asking.ask(rows(1.0, 2.0))
    (await asking.running()).reply(Tensors({"x": np.zeros((1, 5), np.float32)}))
    await settle()
    call = await asking.running()
    assert values(call.request) == [1.0, 2.0]
    call.reply(Tensors({"x": np.zeros((2, 5), np.float32)}))
    assert (await both)["x"].shape == (2, 5)


async def test_a_node_that_makes_several_rows_of_one_is_answered_with_all_of_them() -> None:
    asking = Caching(HOT, expands=True)
    task = await asking.ask(rows(1.0, 2.0, 3.0))
    whole = Tensors({"y": [[10], [11], [30]]}, sources=[0, 0, 2])
    (await asking.running()).reply(whole)
    assert await task == whole
    again = await (await asking.ask(rows(3.0, 2.0, 1.0, 3.0)))
    assert again == Tensors({"y": [[30], [10], [11], [30]]}, sources=[0, 2, 2, 3])
    assert len(asking.script.calls) == 1


async def test_an_answer_of_too_few_rows_is_refused() -> None:
    asking = Caching(HOT)
    task = await asking.ask(rows(1.0, 2.0))
    (await asking.running()).reply(rows(1.0))
    await settle()
    assert isinstance(task.exception(), NodeFailed)


async def test_what_has_no_rows_or_no_key_is_left_to_the_node() -> None:
    asking = Caching(Cache(cache="hot", key=("x",)))
    for request in (rows(), Tensors({"x": np.float32(1.0)}), Tensors({"y": [1]}), Tensors({"x": [1], "y": [1, 2]})):
        task = await asking.ask(request)
        call = await asking.running()
        assert call.request is request
        call.fail(InvalidInput("as without a cache"))
        await settle()
        assert isinstance(task.exception(), InvalidInput)
    assert asking.counter == {}


async def test_answers_are_given_before_they_are_kept_and_taken_meanwhile() -> None:
    asking = Caching(HOT)
    assert isinstance(asking.backend, HeldBackend)
    asking.backend.puts.clear()
    first = await asking.ask(rows(1.0))
    await asking.double()
    assert values(await first) == [2.0]
    assert values(await (await asking.ask(rows(1.0)))) == [2.0]
    asking.backend.puts.set()
    await settle()
    assert values(await (await asking.ask(rows(1.0)))) == [2.0]
    assert len(asking.script.calls) == 1


async def test_what_a_slow_cache_would_have_to_keep_is_bounded() -> None:
    asking = Caching(HOT, max_puts=2)
    assert isinstance(asking.backend, HeldBackend)
    asking.backend.puts.clear()
    for number in (1.0, 2.0, 3.0):
        task = await asking.ask(rows(number))
        await asking.double()
        await task
    assert asking.counter == {"misses": 3, "failures": 1, "putting": 2}
    asking.backend.puts.set()
    await settle()
    assert values(await (await asking.ask(rows(1.0, 2.0)))) == [2.0, 4.0]
    await asking.ask(rows(3.0))
    assert asking.script.pending == 1, "it was not kept"


async def test_only_who_led_and_asked_is_told_how_long_the_node_took() -> None:
    asking = Caching(HOT)
    timings: list[NodeTiming] = []
    context = Context(request_id="r", clock=asking.clock, timings=timings)
    task = await asking.ask(rows(1.0), context)
    call = await asking.running()
    assert call.context.timings is not None
    assert call.context.timings is not timings
    call.context.timings.append(NodeTiming(node="node", rows=1))
    call.echo()
    await task
    assert [timing.node for timing in timings] == ["node"]
    await (await asking.ask(rows(1.0), context))
    assert len(timings) == 1


def test_a_layer_without_its_cache_is_put_around_nothing() -> None:
    with pytest.raises(SetupError, match="bound to its cache 'hot'"):
        HOT(ScriptedHandler())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "Field required"),
        ({"in": "hot", "ttl": "0s"}, "greater than 0"),
        ({"in": "hot", "ttl": 5}, "not a duration"),
        ({"in": "hot", "stale": "5s"}, "stale needs a ttl"),
        ({"in": "hot", "key": []}, "at least 1 item"),
        ({"in": "hot", "key": ["x", "x"]}, "key names something twice"),
        ({"in": "hot", "parameters": ["a", "a"]}, "parameters names something twice"),
        ({"in": "hot", "negative": "0s"}, "greater than 0"),
        ({"in": "hot", "max_refreshes": 0}, "greater than or equal to 1"),
        ({"in": "hot", "tll": "5s"}, "Extra inputs"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Cache.model_validate(settings, strict=True, context={"from_file": True})


def test_settings_are_read_as_a_file_has_them() -> None:
    given = {"in": "hot", "ttl": "60s", "stale": "30s", "key": ["x"], "parameters": ["lang"], "negative": "5s"}
    assert Cache.model_validate(given, strict=True, context={"from_file": True}) == Cache(
        cache="hot", ttl_s=60.0, stale_s=30.0, key=("x",), parameters=("lang",), negative_s=5.0
    )
