"""What the patterns are for: the page in whatever way it lies, results as they come, rows that go where they should."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import RequestError, Unavailable
from mesh.handler import Branches
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.transports import Limits, Transport
from mesh.transports.grpc import GrpcLink
from nodes.aggregate import SoftVote
from nodes.onnx import OnnxPredict
from scripts.measure_patterns import HALVES, Without, mesh_of, rows_of, turned, two_lines_over
from scripts.patterns_page import IMAGES, MEASURED, PAGE, PICTURES, TABLES, everything
from scripts.record_golden import GOLDEN, Golden
from tests.harness.asking import assert_alike
from tests.harness.meshes import LINKS, ROOT, TOPOLOGIES, compiled, local_mesh

PAGE_TEXT = (ROOT / "models" / "page.txt").read_text().rstrip("\n")


def plain(name: str) -> tuple[Tensors, Tensors]:
    """The first recorded request of a topology, and its answer."""
    case = Golden.read(GOLDEN / f"{name}.json").cases[0]
    assert isinstance(case.result, Tensors)
    return case.request, case.result


# ===== Serial =====


async def test_the_page_is_read_exactly_whichever_way_it_lies(tmp_path: Path) -> None:
    pages = Tensors({"page": [turned(quarters) for quarters in range(4)]})
    async with local_mesh(TOPOLOGIES / "serial_ocr.yaml", "by-model", "wire", tmp_path) as mesh:
        context = Context(timings=[]).within(100.0)
        answer = await mesh(pages, context)
    assert [text.decode() for text in answer["text"]] == [PAGE_TEXT] * 4
    assert answer["lines"].tolist() == [7] * 4
    assert answer["turned"].argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert rows_of(context, "turn") == 3
    assert rows_of(context, "turn-line") == 0, "nothing that was read well is read again"


async def test_a_line_that_lies_upside_down_on_its_page_is_read_again() -> None:
    async with mesh_of("serial_ocr") as mesh:
        context = Context(timings=[]).within(100.0)
        answer = await mesh(Tensors({"page": [two_lines_over()]}), context)
    assert answer["text"][0].decode() == PAGE_TEXT
    assert rows_of(context, "turn") == 0
    assert rows_of(context, "read-again") == 2


def test_no_edge_of_the_page_carries_what_the_models_say_of_pixels_and_characters() -> None:
    graph = compiled(TOPOLOGIES / "serial_ocr.yaml").graph
    behind = {edge: spec for edge, spec in graph.edge_specs.items() if edge.startswith(("find.", "read"))}
    assert {str(spec) for spec in behind.values()} == {"BYTES[rows]", "FP32[rows]", "FP32[rows, 4, 2]"}


async def test_only_rows_that_the_cheap_model_is_unsure_of_reach_the_dear_one() -> None:
    request, _ = plain("serial_cascade")
    async with mesh_of("serial_cascade") as cascade, mesh_of("parallel_sync") as both, mesh_of("web_single") as words:
        context = Context(timings=[])
        answer = (await cascade(request, context))["probabilities"]
        mean = (await both(request))["probabilities"]
        cheap = (await words(request))["probabilities"]
    unsure = cheap.max(axis=1) < 0.6
    assert 0 < rows_of(context, "embed") == unsure.sum() < request.rows
    np.testing.assert_allclose(answer, np.where(unsure[:, None], mean, cheap), rtol=0, atol=1e-5)


# ===== Parallel =====


async def said_alone(request: Tensors) -> dict[str, Tensors]:
    """What each half of a picture says by itself."""
    async with mesh_of("parallel_quorum") as mesh:
        events = dict(await streamed(mesh, None, request))
    return {half: found for half in HALVES if isinstance(found := events[half], Tensors)}


@pytest.mark.parametrize("worker", HALVES)
async def test_a_quorum_answers_from_the_others_where_one_branch_cannot_be_reached(worker: str) -> None:
    request, _ = plain("parallel_quorum")
    others = {half: said for half, said in (await said_alone(request)).items() if half != worker}
    async with mesh_of("parallel_quorum", "apart", Without(worker)) as mesh:
        context = Context(timings=[])
        answer = await mesh(request, context)
    assert len(others) == 3
    assert {timing.node for timing in context.timings or ()} == {"scale", "answer", *others}
    assert answer == await SoftVote(mean="geometric").aggregate(Branches(others), Context())


async def test_fewer_than_the_quorum_are_no_answer() -> None:
    request, _ = plain("parallel_quorum")

    class WithoutTwo(Without):
        async def dial(self, address: str, limits: Limits):
            return await super().dial(address.replace("inproc://left", "inproc://nobody"), limits)

    async with mesh_of("parallel_quorum", "apart", WithoutTwo("top")) as mesh:
        with pytest.raises(Unavailable):
            await mesh(request)


Events = AsyncGenerator[tuple[str, Tensors | RequestError]]


async def streamed(mesh: LocalMesh, transport: Transport | None, request: Tensors) -> list[tuple[str, Any]]:
    """The events of one request, through a listener where there is a transport for it."""
    context = Context().within(60.0)
    if transport is None:
        async with aclosing(mesh.root.stream(request, context)) as events:
            return [event async for event in events]
    link = await transport.dial(mesh.gateway_address, Limits())
    assert isinstance(link, GrpcLink)
    try:
        return [event async for event in link.stream("parallel-async", request, context)]
    finally:
        await link.close()


@pytest.mark.parametrize("link", ["inproc", "wire", "grpcio"])
@pytest.mark.parametrize("placement", ["fused", "processes", "apart"])
async def test_each_branch_comes_as_it_ends_and_the_answer_last(placement: str, link: str, tmp_path: Path) -> None:
    request, whole = plain("parallel_async")
    transport = None if link == "inproc" else LINKS[link].transport()
    async with local_mesh(TOPOLOGIES / "parallel_async.yaml", placement, link, tmp_path) as mesh:
        events = await streamed(mesh, transport, request)
    assert [node for node, _ in events][-1] == "answer"
    found = dict(events)
    assert len(events) == len(found) == 3
    mean = (found["words"]["probabilities"] + found["meaning"]["probabilities"]) / 2
    assert_alike(found["answer"], whole, 1e-4)
    np.testing.assert_allclose(mean, whole["probabilities"], rtol=0, atol=1e-4)


async def test_when_the_dear_branch_fails_its_event_is_the_error_and_the_answer_is_that_of_the_words() -> None:
    request, _ = plain("parallel_async")
    async with mesh_of("parallel_async", "apart", Without("dear")) as mesh:
        events = dict(await streamed(mesh, None, request))
    assert isinstance(events["meaning"], Unavailable)
    assert events["answer"] == events["words"]


# ===== Traffic =====


async def test_a_row_falls_into_the_same_arm_alone_and_among_others() -> None:
    image = np.load(ROOT / "models" / "digits_sample.npz")["image"][:200]
    async with mesh_of("canary") as mesh:
        together = Context(timings=[])
        await mesh(Tensors({"image": image}), together)
        alone: dict[str, int] = {"proven": 0, "candidate": 0}
        for row in range(len(image)):
            context = Context(timings=[])
            await mesh(Tensors({"image": image[row : row + 1]}), context)
            (arm,) = [arm for arm in alone if rows_of(context, arm)]
            alone[arm] += 1
    assert alone == {arm: rows_of(together, arm) for arm in alone}
    assert 10 <= alone["candidate"] <= 35, "200 rows, of which a tenth is 20, and three standard deviations are 13"


@pytest.mark.parametrize("link", ["inproc", "wire", "grpcio"])
@pytest.mark.parametrize("placement", ["fused", "processes", "apart"])
async def test_a_shadow_is_compared_row_by_row_and_answers_nobody(placement: str, link: str, tmp_path: Path) -> None:
    image = np.load(ROOT / "models" / "digits_sample.npz")["image"]
    async with local_mesh(TOPOLOGIES / "shadow.yaml", placement, link, tmp_path) as mesh:
        context = Context(timings=[])
        answer = await mesh(Tensors({"image": image}), context)
        assert {timing.node for timing in context.timings or ()} == {"scale", "proven"}
        (shadow,) = mesh.root.shadows
        await shadow.settled()
        seen = shadow.comparison
    async with OnnxPredict(model=ROOT / "models" / "digits_svc.onnx") as candidate:
        other = await candidate.predict(Tensors({"X": image / np.float32(16)}), Context())
    assert (seen.failed, seen.dropped) == (0, 0)
    assert seen.rows_alike == np.count_nonzero(answer["label"] == other["label"]) < answer.rows
    assert seen.rows_unlike == answer.rows - seen.rows_alike


# ===== The page =====


def test_the_page_and_its_pictures_are_what_the_topologies_say() -> None:
    for path, text in everything().items():
        assert path.read_text() == text, f"{path.name}: run python scripts/patterns_page.py"
    page = PAGE.read_text()
    assert sorted(re.findall(r"<!-- measured: (.+?) -->", page)) == sorted(TABLES)
    assert "```yaml\n```" not in page, "an excerpt names nothing"
    for picture in re.findall(r"\]\(images/(\w+)\.svg\)", page):
        assert picture in PICTURES
        assert (IMAGES / f"{picture}.svg").exists()
    named = set(re.findall(r"\]\(\.\./topologies/(\w+)\.yaml\)", page))
    assert named == {path.stem for path in TOPOLOGIES.glob("*.yaml")}


@cache
def measured() -> frozenset[str]:
    """Every share that was measured, as it may be written."""

    def numbers(found: Any) -> Iterator[float]:
        if isinstance(found, dict):
            for value in found.values():
                yield from numbers(value)
        elif isinstance(found, float):
            yield found

    files = (MEASURED, ROOT / "models" / "MEASURED.json")
    known = [number for file in files for number in numbers(json.loads(file.read_text()))]
    return frozenset(f"{number:.4f}".lstrip("0") for number in known)


@pytest.mark.parametrize("name", sorted(path.stem for path in TOPOLOGIES.glob("*.yaml")))
def test_every_share_in_a_header_was_measured(name: str) -> None:
    header = (TOPOLOGIES / f"{name}.yaml").read_text().partition("\nmesh: v1\n")[0]
    assert set(re.findall(r"(?<![\d.])\.\d{4}\b", re.sub(r"\(standard error .*?\)", "", header))) <= measured()
