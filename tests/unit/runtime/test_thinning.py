from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed
from mesh.runtime.rows import Rows
from mesh.runtime.state import State
from mesh.runtime.thinning import Drawn
from mesh.tensors import Array, Tensors
from mesh.topology.graph import Share
from tests.harness.meshes import ROOT
from tests.unit.runtime.given import flow, numbers, values

CASCADE = {
    "small": "Affine, with: {times: 2}, inputs: {x: x}",
    "large": 'Affine, with: {plus: 100}, inputs: {x: x}, when: "small.x < 10"',
    "out": "FirstOf, inputs: [large, small]",
}


async def test_a_node_is_given_just_the_rows_that_meet_its_condition() -> None:
    async with flow(CASCADE, scripted=["large"]) as given:
        asking = await given.ask(1, 9, 2, 8, 3)
        call = await given.called("large")
        assert values(call.request) == [1, 2, 3]
        call.echo()
        assert values(await asking) == [1, 18, 2, 16, 3]


async def test_an_aggregate_puts_rows_back_in_the_order_of_the_request() -> None:
    async with flow(CASCADE) as given:
        assert values(await given.answer(9, 1, 8, 2)) == [18, 101, 16, 102]


async def test_a_node_without_rows_is_not_called_and_neither_is_what_follows_it() -> None:
    nodes = {
        "small": "Affine, inputs: {x: x}",
        "large": 'Affine, inputs: {x: x}, when: "small.x < 0"',
        "larger": "Affine, inputs: {x: large.x}",
        "out": "FirstOf, inputs: [larger, small]",
    }
    async with flow(nodes, scripted=["large", "larger"]) as given:
        assert values(await given.answer(1, 2)) == [1, 2]
        assert (given.calls("large"), given.calls("larger")) == (0, 0)


async def test_a_request_without_rows_is_told_to_every_node() -> None:
    async with flow(CASCADE, scripted=["large"]) as given:
        asking = await given.ask()
        await given.reply("large")
        assert values(await asking) == []


async def test_what_follows_a_condition_sees_just_those_rows_and_may_thin_them_further() -> None:
    nodes = {
        "low": 'Affine, with: {times: 10}, inputs: {x: x}, when: "x < 5"',
        "lower": 'Affine, inputs: {x: low.x}, when: "low.x < 20"',
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [lower, low, all]",
    }
    async with flow(nodes, scripted=["lower"]) as given:
        asking = await given.ask(1, 7, 3, 0, 9)
        call = await given.called("lower")
        assert values(call.request) == [10, 0]
        call.echo()
        assert values(await asking) == [10, 7, 30, 0, 9]


async def test_several_inputs_with_different_conditions_meet_on_the_rows_that_have_all() -> None:
    nodes = {
        "low": 'Affine, with: {times: 10}, inputs: {x: x}, when: "x < 6"',
        "high": 'Affine, with: {times: 100}, inputs: {x: x}, when: "x > 2"',
        "both": 'Add, inputs: {a: low.x, b: high.x}, when: "x != 4"',
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [both, all]",
    }
    async with flow(nodes, scripted=["both"]) as given:
        asking = await given.ask(1, 3, 7, 4, 5)
        call = await given.called("both")
        assert values(call.request, "a") == [30, 50]
        assert values(call.request, "b") == [300, 500]
        call.reply(numbers(-3, -5))
        assert values(await asking) == [1, -3, 7, 4, -5]


async def test_a_condition_may_read_what_its_node_does_not_take() -> None:
    nodes = {
        "score": 'Affine, with: {times: -1}, inputs: {x: x}, when: "x != 2"',
        "some": 'Affine, with: {plus: 50}, inputs: {x: x}, when: "score.x <= -3"',
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [some, all]",
    }
    async with flow(nodes) as given:
        assert values(await given.answer(1, 2, 3, 4)) == [1, 2, 53, 54]


async def test_a_condition_of_a_parameter_holds_for_every_row_or_none() -> None:
    nodes = {
        "asked": 'Affine, with: {plus: 50}, inputs: {x: x}, when: "parameters.more"',
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [asked, all]",
    }
    async with flow(nodes) as given:
        assert values(await given.answer(1, 2, more=True)) == [51, 52]
        assert values(await given.answer(1, 2, more=False)) == [1, 2]
        assert values(await given.answer(1, 2)) == [1, 2]


async def test_an_aggregate_of_branches_behind_one_condition_answers_just_its_rows() -> None:
    nodes = {
        "gate": 'Affine, inputs: {x: x}, when: "x > 2"',
        "one": "Affine, with: {times: 10}, inputs: {x: gate.x}",
        "two": "Affine, with: {times: 30}, inputs: {x: gate.x}",
        "mean": "Mean, inputs: [one, two]",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [mean, all]",
    }
    async with flow(nodes, scripted=["mean"]) as given:
        asking = await given.ask(1, 3, 2, 4)
        call = await given.called("mean")
        assert call.request.rows == 2
        call.reply(numbers(60, 80))
        assert values(await asking) == [1, 60, 2, 80]
        # Without rows, no aggregate is asked either.
        assert values(await given.answer(1, 2)) == [1, 2]
        assert given.calls("mean") == 1


async def test_a_default_answers_the_rows_that_no_branch_took_on() -> None:
    nodes = {
        "large": 'Affine, inputs: {x: x}, when: "x > 2"',
        "out": "FirstOf, with: {default: {x: -1}}, inputs: [large]",
    }
    async with flow(nodes) as given:
        assert values(await given.answer(1, 3, 2, 4)) == [-1, 3, -1, 4]
        assert values(await given.answer(1, 2)) == [-1, -1]


async def test_a_default_does_not_answer_rows_that_never_came_to_its_branches() -> None:
    nodes = {
        "gate": 'Affine, inputs: {x: x}, when: "x > 2"',
        "large": 'Affine, with: {times: 10}, inputs: {x: gate.x}, when: "x > 3"',
        "some": "FirstOf, with: {default: {x: -1}}, inputs: [large]",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [some, all]",
    }
    async with flow(nodes) as given:
        assert values(await given.answer(1, 3, 2, 4)) == [1, -1, 2, 40]


async def test_an_error_names_the_row_that_it_is_of_in_the_request() -> None:
    nodes = {
        "gate": 'Affine, inputs: {x: x}, when: "x > 2"',
        "bad": "Faulty, with: {how: refuses, at: 5}, inputs: {x: gate.x}, when: 'x != 3'",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [bad, all]",
    }
    async with flow(nodes) as given:
        assert await given.error(1, 3, 4, 2, 5) == InvalidInput("5.0 is not liked", node="bad", row=4, request_id="r")


async def test_a_join_that_passes_on_the_error_of_a_branch_does_not_move_its_row() -> None:
    nodes = {
        "gate": 'Affine, inputs: {x: x}, when: "x > 2"',
        "bad": "Faulty, with: {how: refuses, at: 5}, inputs: {x: gate.x}",
        "some": 'Affine, inputs: {x: gate.x}, when: "gate.x > 4"',
        "both": "FirstOf, inputs: [some, bad], join: {required: [some], deadline: 1s}",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [both, all]",
    }
    async with flow(nodes) as given:
        # Row 2 is on no branch that answered, so the join raises the error of the one that failed.
        assert await given.error(1, 5, 4, 6) == InvalidInput("5.0 is not liked", node="bad", row=1, request_id="r")


async def test_the_error_of_an_aggregate_names_the_row_in_the_request() -> None:
    nodes = {
        "gate": 'Affine, inputs: {x: x}, when: "x > 2"',
        "one": "Affine, inputs: {x: gate.x}",
        "mean": "Mean, inputs: [one, gate]",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [mean, all]",
    }
    async with flow(nodes, scripted=["mean"]) as given:
        asking = await given.ask(1, 3, 2, 4)
        await given.fail("mean", InvalidInput("odd", row=1))
        with pytest.raises(InvalidInput) as told:
            await asking
        assert told.value == InvalidInput("odd", node="mean", row=3, request_id="r")


@pytest.mark.parametrize("width", [2, 3])
async def test_a_branch_without_rows_fits_the_others_though_its_sizes_are_not_known(width: int) -> None:
    nodes = {
        "small": f"Wide, with: {{width: {width}}}, inputs: {{x: x}}",
        "large": f'Wide, with: {{width: {width}}}, inputs: {{x: x}}, when: "x < 0"',
        "out": "FirstOf, inputs: [large, small]",
    }
    async with flow(nodes) as given:
        assert values(await given.answer(1, 2)) == [[1] * width, [2] * width]


async def test_an_answer_that_has_not_a_row_for_each_that_it_was_given_is_refused() -> None:
    async with flow(CASCADE, scripted=["large"]) as given:
        for answer, shape in ((numbers(1), "[1]"), (numbers(1, 2, 3), "[3]"), (Tensors({"x": np.float32(1)}), "[]")):
            asking = await given.ask(1, 2, 9)
            (await given.called("large")).reply(answer)
            with pytest.raises(NodeFailed) as told:
                await asking
            assert told.value.text == f"gave a tensor 'x' of shape {shape} for 2 rows"
            assert told.value.node == "large"


# Splits.

ARMS = {
    "old": "Affine, with: {times: 0}, inputs: {x: x}, split: {group: canary, weight: 70BY}",
    "new": "Affine, with: {times: 0, plus: 1}, inputs: {x: x}, split: {group: canary, weight: 30BY}",
    "out": "FirstOf, inputs: [old, new]",
}


def arms(by: str = "") -> Mapping[str, str]:
    return {name: what.replace("BY", by and f", by: {by}") for name, what in ARMS.items()}


async def test_a_split_gives_each_arm_its_share_of_the_rows_and_each_row_to_one_arm() -> None:
    rows = 20_000
    async with flow(arms()) as given:
        new = values(await given.answer(*range(rows)))
    # Five standard deviations of as many draws.
    assert abs(sum(new) / rows - 0.3) < 5 * (0.3 * 0.7 / rows) ** 0.5


async def test_the_same_content_falls_into_the_same_arm_whatever_rows_are_beside_it() -> None:
    async with flow(arms()) as given:
        together = values(await given.answer(*range(50)))
        assert set(together) == {0, 1}
        assert [values(await given.answer(row))[0] for row in range(50)] == together
        assert values(await given.answer(*range(49, -1, -1))) == together[::-1]


async def test_a_parameter_sends_all_rows_of_a_request_to_one_arm_time_after_time() -> None:
    async with flow(arms("parameters.user")) as given:
        found = {user: values(await given.answer(1, 2, 3, user=user)) for user in map(str, range(200))}
        assert all(len(set(rows)) == 1 for rows in found.values())
        assert 30 < sum(rows[0] for rows in found.values()) < 90
        for user, rows in found.items():
            assert values(await given.answer(7, 8, 9, user=user)) == rows


async def test_a_split_by_a_parameter_refuses_a_request_without_it() -> None:
    async with flow(arms("parameters.user")) as given:
        text = "the split 'canary' goes by parameter 'user', which the request does not have"
        assert await given.error(1) == InvalidInput(text, node="old", request_id="r")


DRAW = """
from tests.unit.runtime.test_thinning import drawn
print(drawn())
"""
CONTENTS: tuple[Array, ...] = (
    np.arange(24, dtype=np.float32).reshape(12, 2),
    np.arange(12, dtype=np.int64),
    np.array([f"text {row}".encode() for row in range(12)], object),
    np.array([[b"", b"ab"[: row % 3]] for row in range(12)], object),
    np.arange(12, dtype=">i2").astype(np.int16),
    np.zeros((12, 0), np.float32),
)


RECORDED = ["110101001101", "001000010110", "001001101101", "011111111000", "010011110010", "010011001110"]


def drawn() -> list[str]:
    """Which rows of each content fall into the arm."""
    found: list[str] = []
    for array in CONTENTS:
        state = State(Context(), Rows(12), {"x": array, "y": CONTENTS[0]})
        drawing = Drawn(Share(group="canary", begin=0.25, end=0.75, by=("x", "y")))
        found.append("".join("01"[row in drawing(state, state.all).numbers] for row in range(12)))
    return found


def test_every_process_draws_alike() -> None:
    told = subprocess.run([sys.executable, "-c", DRAW], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(drawn())
    # And every release: a row that moves to another arm is a user who sees another model.
    assert drawn() == RECORDED


def test_rows_are_drawn_alike_from_a_view_as_from_a_copy() -> None:
    wide = np.arange(48, dtype=np.float32).reshape(12, 4)
    drawing = Drawn(Share(group="g", begin=0, end=0.5, by=("x",)))
    view, copy = wide[:, ::2], wide[:, ::2].copy()
    states = [State(Context(), Rows(12), {"x": array}) for array in (view, copy)]
    first, second = (drawing(state, state.all).numbers.tolist() for state in states)
    assert first == second
    assert 0 < len(first) < 12


def test_two_splits_draw_apart() -> None:
    state = State(Context(), Rows(64), {"x": np.arange(64)})
    found = [
        drawing(state, state.all).numbers.tolist()
        for drawing in (Drawn(Share(group=group, begin=0, end=0.5, by=("x",))) for group in ("one", "two"))
    ]
    assert found[0] != found[1]


def test_texts_that_look_alike_when_put_together_are_drawn_apart() -> None:
    one, other = np.array([[b"ab", b"c"]], object), np.array([[b"a", b"bc"]], object)
    parts = [
        [
            bool(Drawn(Share(group=f"g{group}", begin=0, end=0.5, by=("x",)))(state, state.all).count)
            for group in range(64)
        ]
        for state in (State(Context(), Rows(1), {"x": array}) for array in (one, other))
    ]
    assert parts[0] != parts[1]
