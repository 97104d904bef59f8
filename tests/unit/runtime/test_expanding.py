from __future__ import annotations

import numpy as np
import pytest

from mesh.errors import InvalidInput, NodeFailed
from mesh.tensors import Tensors
from tests.unit.runtime.given import flow, numbers, values

SUM = "with: {how: {x: sum}}"
LINES = {
    "lines": "Lines, inputs: {x: x}",
    "read": "Affine, inputs: {x: lines.x}",
    "out": "Gather, with: {how: {x: list}, most: 3}, inputs: [read]",
}


async def test_what_follows_an_expansion_is_given_its_rows_and_a_gather_puts_them_together_by_source() -> None:
    async with flow(LINES, "x: out.x, n: out.count", scripted=["read"]) as given:
        asking = await given.ask(2, 0, 3)
        call = await given.called("read")
        assert values(call.request) == [20, 21, 30, 31, 32]
        assert call.request.sources is None
        call.reply(numbers(1, 2, 3, 4, 5))
        found = await asking
        assert values(found) == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]
        assert values(found, "n") == [2, 0, 3]


async def test_where_an_expansion_makes_no_row_at_all_nothing_is_called_and_the_gather_answers() -> None:
    async with flow(LINES, "x: out.x, n: out.count", scripted=["read"]) as given:
        found = await given.answer(0, 4)
        assert values(found) == [[0, 0, 0], [0, 0, 0]]
        assert values(found, "n") == [0, 0]
        assert given.calls("read") == 0


async def test_a_condition_after_an_expansion_decides_by_its_rows() -> None:
    nodes = {
        "lines": "Lines, inputs: {x: x}",
        "odd": 'Affine, with: {times: 0, plus: 7}, inputs: {x: lines.x}, when: "lines.x in [21, 30, 32]"',
        "best": "FirstOf, inputs: [odd, lines]",
        "out": "Gather, with: {how: {x: list}, most: 3}, inputs: [best]",
    }
    async with flow(nodes, scripted=["odd"]) as given:
        asking = await given.ask(2, 0, 3)
        await given.reply("odd", 7, 8, 9)
        assert values(await asking) == [[20, 7, 0], [0, 0, 0], [8, 31, 9]]


async def test_an_expansion_behind_a_condition_is_gathered_to_the_rows_that_it_was_given() -> None:
    nodes = {
        "lines": 'Lines, inputs: {x: x}, when: "x >= 2"',
        "gathered": f"Gather, {SUM}, inputs: [lines]",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [gathered, all]",
    }
    nodes["out"] = "FirstOf, with: {tensors: [x]}, inputs: [gathered, all]"
    async with flow(nodes) as given:
        assert values(await given.answer(1, 2, 0, 4, 3)) == [1, 41, 0, 0, 93]
        assert values(await given.answer(1, 0)) == [1, 0]


async def test_expansions_within_expansions_are_gathered_one_by_one() -> None:
    nodes = {
        "pages": "Lines, inputs: {x: x}",
        "lines": 'Lines, with: {most: 3}, inputs: {x: pages.x}, when: "pages.x != 31"',
        "page": "Gather, with: {how: {x: list}, most: 2, count: n}, inputs: [lines]",
        "read": "Affine, with: {plus: 1}, inputs: {x: sum.x}",
        "sum": "Gather, with: {how: {x: sum}}, inputs: [lines]",
        "out": "Gather, with: {how: {x: list}, most: 3}, inputs: [read]",
        "shape": "Gather, with: {how: {x: list, n: list}, most: 3}, inputs: [page]",
    }
    async with flow(nodes, "x: out.x, n: shape.n, lines: shape.x") as given:
        found = await given.answer(3, 0, 2)
        # Pages 30, 31, 32 and 20, 21; of them 31 is left out, 30 and 21 have no lines, 32 and 20 have two.
        assert values(found) == [[1, 642, 0], [0, 0, 0], [402, 1, 0]]
        assert values(found, "n") == [[0, 2, 0], [0, 0, 0], [2, 0, 0]]
        assert values(found, "lines")[0] == [[0, 0], [320, 321], [0, 0]]


async def test_two_expansions_side_by_side_keep_their_rows_apart() -> None:
    nodes = {
        "words": "Lines, inputs: {x: x}",
        "lines": "Lines, with: {most: 2}, inputs: {x: x}",
        "many": f"Gather, {SUM}, inputs: [words]",
        "few": f"Gather, {SUM}, inputs: [lines]",
        "out": "Stack, with: {tensors: [x]}, inputs: [many, few]",
    }
    async with flow(nodes) as given:
        assert values(await given.answer(3, 2, 5)) == [[93, 30], [41, 0], [50, 50]]


async def test_an_error_after_an_expansion_names_the_row_of_the_request() -> None:
    nodes = {
        "lines": 'Lines, inputs: {x: x}, when: "x > 0"',
        "bad": "Faulty, with: {how: refuses, at: 21}, inputs: {x: lines.x}, when: 'lines.x != 30'",
        "gathered": f"Gather, {SUM}, inputs: [bad]",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, with: {tensors: [x]}, inputs: [gathered, all]",
    }
    async with flow(nodes) as given:
        assert await given.error(0, 3, 2) == InvalidInput("21.0 is not liked", node="bad", row=2, request_id="r")


async def test_an_error_of_a_gather_names_the_row_of_the_request() -> None:
    nodes = {
        "lines": 'Lines, inputs: {x: x}, when: "x > 0"',
        "gathered": "Gather, with: {how: {x: list}, most: 2}, inputs: [lines]",
        "wide": "Wide, with: {width: 2}, inputs: {x: x}",
        "out": "FirstOf, with: {tensors: [x]}, inputs: [gathered, wide]",
    }
    async with flow(nodes) as given:
        error = await given.error(0, 2, 0, 3)
        assert (error.node, error.row) == ("gathered", 3)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (numbers(1, 2), "gave no sources, and its rows are not those that it was given"),
        (Tensors({"x": np.zeros(1, np.float32)}, sources=[2]), "gave a row of row 2, where 2 were given"),
        (
            Tensors.trusted({"x": np.zeros(3, np.float32)}, np.array([0, 1])),
            "gave a tensor 'x' of shape [3] for 2 rows",
        ),
    ],
)
async def test_an_expansion_that_does_not_say_where_its_rows_come_from_is_refused(answer: Tensors, why: str) -> None:
    async with flow(LINES, scripted=["lines"]) as given:
        asking = await given.ask(1, 2)
        (await given.called("lines")).reply(answer)
        with pytest.raises(NodeFailed) as told:
            await asking
        assert told.value == NodeFailed(why, node="lines", tensor=told.value.tensor, request_id="r")


@pytest.mark.parametrize("gives", ["none", "past the last"])
async def test_a_class_that_says_no_sources_or_wrong_ones_is_refused(gives: str) -> None:
    nodes = {**LINES, "lines": f"Pages, with: {{gives: {gives}}}, inputs: {{x: x}}"}
    async with flow(nodes) as given:
        error = await given.error(1, 2)
        assert isinstance(error, NodeFailed)
        assert error.node == "lines"
