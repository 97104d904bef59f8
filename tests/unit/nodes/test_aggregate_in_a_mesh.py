"""Aggregates in a topology: checked with it, told again where they run, and asked by whoever reaches their service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from mesh import Branches, Context, InvalidInput, Tensors, TopologyError, Unavailable
from mesh.runtime.build import build_node
from tests.harness.meshes import compiled, local_mesh
from tests.unit.nodes.given import MODELS

FILE = """
mesh: v1
name: digits
models: {models}
inputs:
  image: {{datatype: FP32, shape: [-1, 64]}}
nodes:
  logreg: {{uses: "nodes.onnx:OnnxPredict", with: {{model: digits_logreg.onnx}}, inputs: {{X: image}}}}
  knn: {{uses: "nodes.onnx:OnnxPredict", with: {{model: digits_knn.onnx}}, inputs: {{X: image}}}}
  answer: {{uses: "nodes.aggregate:{uses}", inputs: [logreg, knn], with: {options}}}
outputs: {{label: answer.label}}
"""


def topology(folder: Path, uses: str, options: str = "{}") -> Path:
    file = folder / "digits.yaml"
    file.write_text(FILE.format(models=MODELS, uses=uses, options=options))
    return file


def images() -> Tensors:
    return Tensors({"image": np.load(MODELS / "digits_sample.npz")["image"][:20] / np.float32(16)})


@pytest.mark.parametrize("placement", ["fused", "processes"])
async def test_an_ensemble_answers_alike_wherever_its_branches_run(placement: str, tmp_path: Path) -> None:
    file = topology(tmp_path, "SoftVote", "{mean: geometric, classes: [a, b, c, d, e, f, g, h, i, j]}")
    async with local_mesh(file, placement, "inproc-strict", tmp_path) as mesh:
        answer = await mesh(images(), Context())
    truth = np.load(MODELS / "digits_sample.npz")["label"][:20]
    assert [label.decode() for label in answer["label"]] == ["abcdefghij"[digit] for digit in truth]


@pytest.mark.parametrize(
    ("uses", "options", "text"),
    [
        ("Mean", "{}", "Mean: tensor 'label' is INT64[rows], which has no mean; name the tensors to join"),
        ("WeightedMean", "{weights: {logreg: 1}, tensors: [probabilities]}", "weights has none for branch 'knn'"),
        (
            "FirstOf",
            "{default: {label: ten, probabilities: 0}}",
            "default of tensor 'label' is 'ten', which is no INT64",
        ),
        ("FirstOf", "{tensors: label}", "tensors"),
        ("SoftVote", "{mean: harmonic}", "mean"),
    ],
)
def test_a_join_that_cannot_be_is_found_in_the_file(uses: str, options: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(TopologyError) as caught:
        compiled(topology(tmp_path, uses, options))
    (problem,) = caught.value.problems
    assert problem.line == 10
    assert text in problem.text


async def test_a_worker_is_told_what_its_aggregates_join_so_that_a_default_has_a_type(tmp_path: Path) -> None:
    options = "{default: {label: -1, probabilities: 0.1}}"
    graph = compiled(topology(tmp_path, "FirstOf", options)).graph
    gone = Unavailable("gone")
    async with AsyncExitStack() as lifetime:
        answer = await build_node(graph, graph.node("answer"), "worker", lifetime)
        found = await answer(Branches({"logreg": gone, "knn": gone}, 2), Context())
    assert found == Tensors({"label": [-1, -1], "probabilities": np.full((2, 10), 0.1, np.float32)})


async def test_a_branch_that_answers_a_row_twice_never_reaches_a_join(tmp_path: Path) -> None:
    graph = compiled(topology(tmp_path, "FirstOf", "{tensors: [label]}")).graph
    twice = Branches({"logreg": Tensors({"label": [1, 2]}, sources=[0, 0])}, 1)
    async with AsyncExitStack() as lifetime:
        answer = await build_node(graph, graph.node("answer"), "worker", lifetime)
        with pytest.raises(InvalidInput, match="branch 'logreg' has to answer each of its rows once") as caught:
            await answer(twice, Context())
    assert caught.value.node == "answer"
