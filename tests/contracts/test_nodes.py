"""Every node of the library keeps the contract of its kind."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import nodes
from mesh import Branches, Cache, Node, Tensors
from mesh.testing import check_node
from nodes.aggregate import (
    Concat,
    FirstOf,
    Gather,
    MajorityVote,
    Max,
    Mean,
    RankFusion,
    Select,
    SoftVote,
    Stack,
    WeightedMean,
)
from nodes.embedding import SentenceEmbedding
from nodes.fetch import Fetch
from nodes.filetype import Features, Label
from nodes.image import DecodeImage
from nodes.ocr_lines import FindLines, ReadLines
from nodes.ocr_page import Orientation, Turn, TurnLine
from nodes.onnx import OnnxPredict
from nodes.same import Same
from nodes.surest import Surest
from nodes.tabular import Scale
from nodes.text import Lowercase
from tests.unit.nodes.given import MODELS, fetched, page, picture_file

Case = tuple[Callable[[], Node], Tensors | Branches]

FILES = ["nodes/onnx.py", "pyproject.toml", "LICENSE", "models/README.md"]


def pictures(*sizes: tuple[int, int]) -> Tensors:
    rng = np.random.default_rng(0)
    files = np.empty(len(sizes), object)
    for row, (height, width) in enumerate(sizes):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(out, ["PNG", "JPEG"][row % 2])
        files[row] = out.getvalue()
    return Tensors({"image": files})


def images() -> np.ndarray:
    return np.load(MODELS / "digits_sample.npz")["image"][:40]


def files() -> Tensors:
    data = [(MODELS.parent / name).read_bytes() for name in FILES]
    return Tensors({"file": np.array(data, dtype=object)})


def references() -> Tensors:
    return Tensors({"reference": np.array([f"file:{name}".encode() for name in FILES], dtype=object)})


def sentences() -> Tensors:
    lines = (MODELS / "sentiment_sample.tsv").read_text().splitlines()[1:40]
    return Tensors({"text": [[line.split("\t")[1]] for line in lines]})


def digits(name: str) -> Case:
    return lambda: OnnxPredict(model=MODELS / f"digits_{name}.onnx"), Tensors({"X": images() / np.float32(16)})


def magika_bytes() -> Tensors:
    rows = np.random.default_rng(0).integers(0, 257, (5, 2048), dtype=np.int32)
    return Tensors({"bytes": rows})


def scores() -> Tensors:
    return Tensors({"scores": np.random.default_rng(0).random((5, 214), dtype=np.float32)})


def pages() -> Tensors:
    """Three parts of the page, of different sizes: one line, no text, and two lines turned."""
    parts = [page().crop((0, 0, 384, 40)), page().crop((0, 0, 100, 8)), page().crop((0, 30, 384, 80)).rotate(180)]
    return Tensors({"image": np.array([picture_file(part) for part in parts], object)})


def pages_and_scores() -> Tensors:
    return Tensors({**pages(), "scores": np.eye(4, dtype=np.float32)[[0, 1, 2]]})


def lines() -> Tensors:
    parts = [page().crop((8, 8, 320, 34)), page().crop((20, 30, 110, 54))]
    return Tensors({"line": np.array([picture_file(part) for part in parts], object)})


def branches(rows: int = 6) -> Branches:
    """Three models' answers."""
    rng = np.random.default_rng(0)
    answers = {
        name: Tensors(
            {
                "label": rng.integers(0, 3, rows).astype(str),
                "probabilities": rng.random((rows, 3), dtype=np.float32),
                "ids": rng.integers(-1, 6, (rows, 4)),
            }
        )
        for name in "abc"
    }
    return Branches(answers)


def readings() -> Branches:
    """Every line read, and some of them again."""
    first = Tensors({"text": ["one", "tw0", "thrce"], "score": np.array([0.9, 0.5, 0.4], np.float32)})
    again = Tensors({"text": ["two", "?"], "score": np.array([0.9, 0.3], np.float32)}, sources=[1, 2])
    return Branches({"first": first, "again": again})


def routed() -> Branches:
    return Branches({"router": Tensors({"choice": ["b", "a", "c", "b", "a", "c"]}), **branches()})


def gathered() -> Branches:
    every = next(iter(branches(9).answers.values()))
    return Branches({"lines": Tensors(every, sources=[0, 0, 0, 1, 3, 3, 4, 5, 5])}, 6)


EACH = {"label": "none", "probabilities": 0.5, "ids": -1}

AGGREGATES: dict[str, Callable[[], Case]] = {
    "FirstOf": lambda: (FirstOf, branches()),
    "FirstOf, with a default": lambda: (lambda: FirstOf(default=EACH), branches()),
    "Select": lambda: (lambda: Select(by="router.choice"), routed()),
    "Select, with a default": lambda: (lambda: Select(by="router.choice", default=EACH), routed()),
    "Select, a branch": lambda: (lambda: Select(branch="b"), branches()),
    "Mean": lambda: (lambda: Mean(tensors=["probabilities"]), branches()),
    "Mean, with a default": lambda: (
        lambda: Mean(tensors=["probabilities"], default={"probabilities": [1, 2, 3]}),
        branches(),
    ),
    "Mean, large": lambda: (lambda: Mean(tensors=["probabilities"]), branches(10_000)),
    "WeightedMean": lambda: (
        lambda: WeightedMean(weights={"a": 1, "b": 2, "c": 0.5}, tensors=["probabilities"]),
        branches(),
    ),
    "Max": lambda: (lambda: Max(tensors=["probabilities", "ids"]), branches()),
    "MajorityVote": lambda: (MajorityVote, branches()),
    "SoftVote": lambda: (lambda: SoftVote(classes=["x", "y", "z"]), branches()),
    "SoftVote, geometric": lambda: (lambda: SoftVote(mean="geometric"), branches()),
    "RankFusion": lambda: (lambda: RankFusion(top=3), branches()),
    "Concat": lambda: (lambda: Concat(tensors=["ids", "probabilities"]), branches()),
    "Stack": lambda: (Stack, branches()),
    "Stack, filled in": lambda: (lambda: Stack(fill=EACH, mask="there"), branches()),
    "Gather": lambda: (lambda: Gather(how={"label": "concat", "probabilities": "mean", "ids": "first"}), gathered()),
    "Gather, in lists": lambda: (lambda: Gather(how={"label": "list", "ids": "list"}, most=4), gathered()),
}

CASES: dict[str, Callable[[], Case]] = {
    **AGGREGATES,
    "Scale": lambda: (lambda: Scale(divide_by=16, subtract=8), Tensors({"x": images()})),
    "Scale, large": lambda: (
        lambda: Scale(divide_by=16),
        Tensors({"x": np.tile(images(), (100, 1)).reshape(2, -1)}),
    ),
    "Lowercase": lambda: (Lowercase, sentences()),
    "Same": lambda: (lambda: Same(tensor="text", type="BYTES[rows, n]"), sentences()),
    "Fetch": lambda: (lambda: Fetch(roots=[MODELS.parent]), references()),
    "Features": lambda: (Features, files()),
    "Label": lambda: (lambda: Label(labels=fetched("magika.json")), scores()),
    "Orientation": lambda: (Orientation, pages()),
    "Turn": lambda: (Turn, pages_and_scores()),
    "TurnLine": lambda: (TurnLine, lines()),
    "FindLines": lambda: (lambda: FindLines(model=fetched("ocr_lines.onnx"), longest=384), pages()),
    "ReadLines": lambda: (lambda: ReadLines(model=fetched("ocr_text.onnx")), lines()),
    "Surest": lambda: (Surest, readings()),
    "SentenceEmbedding": lambda: (
        lambda: SentenceEmbedding(model=fetched("minilm.onnx"), tokenizer=fetched("minilm.json"), batch=2),
        Tensors({"text": sentences()["text"][:3]}),
    ),
    "DecodeImage": lambda: (DecodeImage, pictures((8, 5), (8, 5), (8, 5))),
    "DecodeImage, resizing": lambda: (lambda: DecodeImage(size=[6, 6]), pictures((8, 5), (3, 9), (600, 400))),
    "OnnxPredict, on the loop": lambda: digits("logreg"),
    "OnnxPredict, in a thread": lambda: digits("knn"),
    "OnnxPredict, calibrated": lambda: digits("svc"),
    "OnnxPredict, half a picture": lambda: digits("top"),
    "OnnxPredict, text": lambda: (lambda: OnnxPredict(model=MODELS / "sentiment_words.onnx"), sentences()),
    "OnnxPredict, Magika": lambda: (lambda: OnnxPredict(model=fetched("magika.onnx")), magika_bytes()),
}

# Rows of linear models and of Magika differ in the last bits alone and in a batch.
TOLERANCES = {"OnnxPredict, Magika": 2e-4}


@pytest.mark.parametrize("name", CASES)
async def test_a_node_of_the_library_keeps_the_contract(name: str) -> None:
    make, example = CASES[name]()
    await check_node(make, example, tolerance=TOLERANCES.get(name, 2e-6))


def test_every_node_of_the_library_is_held_against_the_contract() -> None:
    found: set[str] = set()
    for module in pkgutil.walk_packages(nodes.__path__, "nodes."):
        for name, value in vars(importlib.import_module(module.name)).items():
            # Cache nodes take no part in the flow: see test_cache_nodes.py.
            is_node = inspect.isclass(value) and issubclass(value, Node) and not issubclass(value, Cache)
            if is_node and value.__module__ == module.name:
                found.update([] if inspect.isabstract(value) else [name])
    assert found == {name.split(",")[0] for name in CASES}
