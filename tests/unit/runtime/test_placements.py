"""What a branch does wrong ends alike wherever it runs: in this process, in a piece of the graph, behind a link."""

from __future__ import annotations

import logging

import pytest

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, RequestError
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_text
from mesh.transports import InprocTransport
from tests.unit.runtime.given import HEAD, numbers, spelled, values

PLACES = ("fused", "processes", "pieces", "mixed")
HOW = {
    "refuses": InvalidInput("3.0 is not liked", node="bad", row=4, request_id="r"),
    "raises": NodeFailed("the node raised RuntimeError; the worker's log has the cause", node="bad", request_id="r"),
    "a row too few": NodeFailed("gave a tensor 'x' of shape [1] for 2 rows", node="bad", tensor="x", request_id="r"),
    "another shape": NodeFailed(
        "gave a tensor 'x' that has shape [2, 1] where FP32[rows] is needed", node="bad", tensor="x", request_id="r"
    ),
    "another datatype": NodeFailed(
        "gave a tensor 'x' that has datatype FP64 where FP32 is needed", node="bad", tensor="x", request_id="r"
    ),
    "another name": NodeFailed("gave no tensor 'x'", node="bad", tensor="x", request_id="r"),
}
"""What a branch does -> how it is told."""


def nodes(how: str, join: str) -> dict[str, str]:
    """A branch that is wrong at 3, fed by rows that were thinned."""
    return {
        "gate": 'Affine, inputs: {x: x}, when: "x > 1"',
        "twice": "Affine, with: {times: 2}, inputs: {x: gate.x}",
        "bad": f"Faulty, with: {{how: {how}, at: 3}}, inputs: {{x: gate.x}}",
        "both": f"Max, inputs: [bad, twice], join: {{{join}}}",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [both, all]",
    }


async def ended(flowing: dict[str, str], place: str, *request: float) -> Tensors | RequestError:
    """How one request ends."""
    names = list(flowing)
    written = "".join(f"  {name}: {{{spelled(what)}}}\n" for name, what in flowing.items())
    pieces = f"  pieces: {{front: {{nodes: []}}, far: {{nodes: [{', '.join(names)}]}}}}\n"
    mixed = f"  mixed: {{front: {{nodes: [{', '.join(names[::2])}]}}, far: {{nodes: [{', '.join(names[1::2])}]}}}}\n"
    text = f"{HEAD}nodes:\n{written}outputs: {{x: out.x}}\nplacements:\n{pieces}{mixed}"
    async with LocalMesh(compile_text(text, LAYERS).plan(place), transport=InprocTransport(strict=True)) as mesh:
        try:
            return await mesh(numbers(*request), Context(request_id="r"))
        except RequestError as error:
            return error


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", HOW)
async def test_a_branch_that_is_needed_and_answers_wrongly_fails_the_request(
    how: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "mesh.node"):
        assert await ended(nodes(how, "required: [bad]"), place, 0, 1, 2, 1, 3) == HOW[how]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", HOW)
async def test_a_join_does_without_a_branch_that_answers_wrongly(
    how: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "mesh.node"):
        found = await ended(nodes(how, "required: [twice]"), place, 0, 1, 2, 1, 3)
    assert values(found) == [0, 1, 4, 1, 6]


@pytest.mark.parametrize("place", PLACES)
async def test_an_error_within_an_expansion_names_the_row_of_the_request(place: str) -> None:
    flowing = {
        "pages": 'Lines, inputs: {x: x}, when: "x > 1"',
        "lines": "Lines, inputs: {x: pages.x}",
        "bad": "Faulty, with: {how: refuses, at: 311}, inputs: {x: lines.x}, when: 'lines.x != 200'",
        "page": "Gather, with: {how: {x: sum}}, inputs: [bad]",
        "gathered": "Gather, with: {how: {x: sum}}, inputs: [page]",
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, with: {tensors: [x]}, inputs: [gathered, all]",
    }
    assert await ended(flowing, place, 0, 2, 1, 3) == InvalidInput(
        "311.0 is not liked", node="bad", row=3, request_id="r"
    )
    # 20 has none of its own and 21 has one; the rows that were not expanded are answered beside.
    assert values(await ended(flowing, place, 0, 2, 1)) == [0, 210, 1]


@pytest.mark.parametrize("place", PLACES)
async def test_a_split_by_a_parameter_that_is_not_sent_is_refused(place: str) -> None:
    flowing = {
        "old": "Affine, inputs: {x: x}, split: {group: g, weight: 50, by: parameters.user}",
        "new": "Affine, inputs: {x: x}, split: {group: g, weight: 50}",
        "out": "FirstOf, inputs: [old, new]",
    }
    text = "the split 'g' goes by parameter 'user', which the request does not have"
    # Both arms refuse it: which one comes first is up to the placement.
    refused = [InvalidInput(text, node=name, request_id="r") for name in ("old", "new")]
    assert await ended(flowing, place, 1, 2) in refused
