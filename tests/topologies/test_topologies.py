"""Every topology, in every placement, over every link: the recorded answers, and the same errors.

A new file in `topologies/` is picked up by itself, and fails until `scripts/record_golden.py` has recorded what it
answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml

from mesh.cli.main import main
from mesh.context import Context
from mesh.errors import InvalidInput, RequestError
from mesh.signature import TensorSpec
from mesh.tensors import DATATYPES, Array, Tensors, concatenate
from scripts.record_golden import GOLDEN, REQUEST_ID, Golden
from tests.harness.asking import assert_alike, result_of
from tests.harness.meshes import LINKS, TOPOLOGIES, Result, compiled, local_mesh
from tests.harness.outside import outside

FILES = {path.stem: path for path in sorted(TOPOLOGIES.glob("*.yaml"))}
PLACED = [
    (name, placement)
    for name, path in FILES.items()
    for placement in ("fused", "processes", *(yaml.safe_load(path.read_text()).get("placements") or {}))
]
DEAR = (
    "serial_ocr",
    "serial_cascade",
    "parallel_sync",
    "parallel_async",
    "input_data_cache",
    "tiered_cache",
    "asynchronous",
    "asynchronous_parallel",
    "batch",
)
"""Files whose models take a second to load, or whose requests a third of one: not over every pair of engines."""
LINKS_OF_DEAR = ("inproc", "wire", "grpcio")
EVERYWHERE = [
    pytest.param(name, placement, link, id=f"{name}-{placement}-{link}")
    for name, placement in PLACED
    for link in (LINKS_OF_DEAR if name in DEAR else LINKS)
]


@cache
def golden(name: str) -> Golden:
    path = GOLDEN / f"{name}.json"
    if not path.exists():
        pytest.fail(f"no recorded answer: scripts/record_golden.py topologies/{name}.yaml --input ...", pytrace=False)
    return Golden.read(path)


def broken(request: Tensors, specs: Mapping[str, TensorSpec]) -> Iterator[tuple[str, Tensors]]:
    """What is wrong with a request in each of the ways that a caller may get it wrong, input by input."""
    yield "nothing", Tensors({})
    yield "unknown tensor", Tensors({**request, "no-such-input": np.zeros(request.rows, np.int8)})
    for name, spec in specs.items():
        array = request[name]
        rest = {other: request[other] for other in request if other != name}
        other = "INT8" if spec.datatype == "BYTES" else "BYTES"
        yield f"{name} is missing", Tensors(rest)
        yield f"{name} of another datatype", Tensors({**rest, name: _zeros(array.shape, other)})
        yield f"{name} with an axis more", Tensors({**rest, name: array[..., None]})
        yield f"{name} without the batch", Tensors({**rest, name: array[0]})
        yield f"{name} as a scalar", Tensors({**rest, name: array.ravel()[0]})
        for axis, size in enumerate(spec.shape):
            if isinstance(size, int):
                yield f"{name} too long on axis {axis}", Tensors({**rest, name: np.repeat(array, 2, axis)})
        if rest:
            yield f"{name} with a row less", Tensors({**rest, name: array[1:]})


def _zeros(shape: tuple[int, ...], datatype: str) -> Array:
    return np.full(shape, b"", object) if datatype == "BYTES" else np.zeros(shape, DATATYPES[datatype].dtype)


class Outcomes:
    """How the requests of one topology end in one placement over one kind of link."""

    def __init__(self, name: str, placement: str, link: str) -> None:
        self.golden = golden(name)
        self.plain = self.golden.cases[0].request
        self.specs = compiled(FILES[name]).graph.inputs
        self.recorded: dict[str, Result] = {}
        """By case."""
        self.broken: dict[str, Result] = {}
        self.alone: list[Result] = []
        """Of the rows of the plain case, one at a time."""
        self.at_once: list[Result] = []
        """Of the same rows, all in flight together with the cases that fail."""
        with outside(FILES[name]) as file:
            asyncio.run(self._ask(file, placement, link))

    async def _ask(self, file: Path, placement: str, link: str) -> None:
        rows = [self.plain.take(row, row + 1) for row in range(self.plain.rows)]
        with TemporaryDirectory() as folder:
            async with local_mesh(file, placement, link, Path(folder)) as mesh:

                async def ask(request: Tensors) -> Result:
                    return await result_of(mesh, request, Context(request_id=REQUEST_ID))

                self.recorded = {case.name: await ask(case.request) for case in self.golden.cases}
                self.broken = {what: await ask(request) for what, request in broken(self.plain, self.specs)}
                self.alone = [await ask(row) for row in rows]
                self.no_rows = await ask(self.plain.take(0, 0))
                bad = [case.request for case in self.golden.cases if isinstance(case.result, RequestError)]
                bad += [request for _, request in broken(self.plain, self.specs)]
                together = await asyncio.gather(*map(ask, (*rows, *bad)))
                self.at_once = together[: len(rows)]


outcomes = cache(Outcomes)
"""Asked once, looked at by several tests."""


@pytest.mark.parametrize(("name", "placement", "link"), EVERYWHERE)
def test_answers_as_recorded(name: str, placement: str, link: str) -> None:
    for case in golden(name).cases:
        assert_alike(outcomes(name, placement, link).recorded[case.name], case.result, golden(name).tolerance)


@pytest.mark.parametrize(("name", "placement", "link"), EVERYWHERE)
def test_answers_the_same_batch_with_the_same_bits_as_in_one_process(name: str, placement: str, link: str) -> None:
    here, fused = outcomes(name, placement, link), outcomes(name, "fused", "inproc")
    assert here.recorded == fused.recorded
    assert here.alone == fused.alone
    assert here.no_rows == fused.no_rows


@pytest.mark.parametrize(("name", "placement", "link"), EVERYWHERE)
def test_refuses_bad_input_with_the_same_error_as_in_one_process(name: str, placement: str, link: str) -> None:
    found = outcomes(name, placement, link).broken
    assert found == outcomes(name, "fused", "inproc").broken
    for what, error in found.items():
        assert isinstance(error, InvalidInput), what
        assert error.request_id == REQUEST_ID, what
        assert error.tensor, what


@pytest.mark.parametrize(("name", "placement", "link"), EVERYWHERE)
def test_answers_rows_alone_as_it_answers_them_together(name: str, placement: str, link: str) -> None:
    here = outcomes(name, placement, link)
    together = here.recorded[here.golden.cases[0].name]
    assert isinstance(together, Tensors)
    answers = [answer for answer in here.alone if isinstance(answer, Tensors)]
    assert_alike(concatenate(answers), together, here.golden.tolerance)


@pytest.mark.parametrize(("name", "placement", "link"), EVERYWHERE)
def test_a_bad_request_does_no_harm_to_those_beside_it(name: str, placement: str, link: str) -> None:
    here = outcomes(name, placement, link)
    for found, alone in zip(here.at_once, here.alone, strict=True):
        assert isinstance(alone, Tensors)
        assert_alike(found, alone, here.golden.tolerance)


@pytest.mark.parametrize(("name", "placement", "link"), EVERYWHERE)
def test_a_batch_without_rows_is_answered_without_rows(name: str, placement: str, link: str) -> None:
    found = outcomes(name, placement, link).no_rows
    plain = outcomes(name, placement, link).golden.cases[0].result
    assert isinstance(found, Tensors)
    assert isinstance(plain, Tensors)
    assert {key: (array.dtype, array.shape) for key, array in found.items()} == {
        key: (array.dtype, (0, *array.shape[1:])) for key, array in plain.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_is_checked_without_a_mistake(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(FILES[name])]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[0].endswith(": ok")


@pytest.mark.parametrize("name", FILES)
def test_says_what_it_is_for(name: str) -> None:
    header = FILES[name].read_text().partition("\nmesh: v1\n")[0].splitlines()
    assert header, "the header comment goes before everything else"
    assert all(line == "#" or line.startswith("# ") for line in header)
    assert any(line.startswith("# For: ") for line in header), "say what the pattern is for"
    assert any(f"`mesh up topologies/{name}.yaml" in line for line in header), "say how to start it"


def test_no_answer_is_recorded_for_a_topology_that_is_gone() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(FILES)
