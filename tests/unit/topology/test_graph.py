"""Graphs are values: compared, printed, sent to another process; and their digest tells what decides answers."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from mesh.signature import TensorSpec
from mesh.topology import Graph, GraphNode, LayerSettings, edge_node
from tests.unit.topology import sample_nodes
from tests.unit.topology.given import FOLDER, GOOD, NODES, changed, compiled, one_node

IMAGE = TensorSpec("FP32", ("rows", 64))
LABEL = TensorSpec("INT64", ("rows",))


def graph(text: str = GOOD) -> Graph:
    return compiled(text).graph


def test_a_graph_holds_what_the_file_says_checked_and_typed() -> None:
    made = graph()
    assert (made.name, made.file, made.model_root) == ("digits", "t.yaml", str(FOLDER))
    assert made.inputs == {"image": IMAGE}
    assert made.outputs == {"label": "answer.label", "p": "small.p"}
    assert made.output_specs == {"label": LABEL, "p": TensorSpec("FP32", ("rows", 10))}
    assert made.node("small") == GraphNode(
        name="small",
        kind="predict",
        uses=f"{NODES}:Model",
        arguments={},
        inputs={"X": "scale.x"},
        takes={"X": IMAGE},
        gives={"label": LABEL, "p": TensorSpec("FP32", ("rows", 10))},
        layers=(
            LayerSettings("queue", {"max_rows": 64}),
            LayerSettings("batch", {"max_rows": 8, "max_delay": "1ms"}),
        ),
        version="1",
    )
    assert [node.kind for node in made.nodes] == ["preprocess", "predict", "predict", "aggregate"]
    with pytest.raises(KeyError, match="nobody"):
        made.node("nobody")


def test_every_edge_has_a_type() -> None:
    made = graph()
    assert set(made.edge_specs) == {
        "image", "scale.x", "small.label", "small.p", "large.label", "large.p", "answer.label", "answer.sizes",
    }  # fmt: skip
    assert made.edge_specs["scale.x"] == IMAGE
    for node in made.nodes:
        assert made.edge_specs.keys() >= set(node.edges)


def test_what_feeds_a_node_is_told_once_each() -> None:
    answer = graph().node("answer")
    assert answer.edges == ["small.label", "small.p", "large.label", "large.p"]
    assert answer.after == ["small", "large"]
    assert graph().node("scale").after == []
    assert (edge_node("scale.x"), edge_node("image"), edge_node("a.b.c")) == ("scale", "", "a")


def test_equal_files_make_equal_graphs_that_can_be_printed_and_sent() -> None:
    assert graph() == graph()
    assert repr(graph()) == repr(graph())
    assert "FP32" in repr(graph())
    assert pickle.loads(pickle.dumps(graph())) == graph()
    assert graph() != graph(changed("add: 100", "add: 101"))


@pytest.mark.parametrize("name", [one.name for one in fields(Graph)])
def test_a_graph_cannot_be_changed(name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(graph(), name, None)


def test_a_node_cannot_be_changed() -> None:
    for name in ("name", "takes", "gives", "layers"):
        with pytest.raises(FrozenInstanceError):
            setattr(graph().node("small"), name, None)


def test_the_digest_tells_nothing_of_place_comments_order_of_keys_and_placements() -> None:
    digest = graph().digest
    assert len(bytes.fromhex(digest)) == 32
    assert replace(graph(), file="elsewhere.yaml", model_root="/elsewhere").digest == digest
    assert graph(f"# a comment\n{GOOD}").digest == digest
    assert graph(changed("name: digits", "name: digits\ndescription: told")).digest == digest
    assert graph(changed("mesh: v1\nname: digits\n", "name: digits\nmesh: v1\n")).digest == digest
    assert graph(changed("mesh: v1", "mesh: v1\nengine: grpcio")).digest == digest
    assert graph(changed("replicas: 2", "replicas: 3")).digest == digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: digits", "name: other"),
        ("divide_by: 16", "divide_by: 17"),
        ("max_rows: 8", "max_rows: 9"),
        ("max_delay: 1ms", "max_delay: 2ms"),
        ("[-1, 64]", "[-1, -1]"),
        ("[small, large]", "[large, small]"),  # the order of branches may decide
        ("  p: small.p", "  p: large.p"),
        ("  p: small.p", "  q: small.p"),
        (f"  answer:\n    uses: {NODES}:Join", f"  answer:\n    uses: {NODES}:OtherJoin"),
    ],
)
def test_the_digest_tells_whatever_decides_answers(old: str, new: str) -> None:
    assert graph(changed(old, new)).digest != graph().digest


def test_the_digest_tells_what_a_model_file_holds(tmp_path: Path) -> None:
    text = one_node("FromFile", "    with: {model: model}\n")
    digests: set[str] = set()
    for content in ("one", "two", "one"):
        (tmp_path / "model").write_text(content)
        digests.add(compiled(text, tmp_path).graph.digest)
    assert len(digests) == 2


def test_the_digest_tells_the_version_that_a_node_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph().digest
    monkeypatch.setattr(sample_nodes.Model, "version", "2")
    assert graph().node("small").version == "2"
    assert graph().digest != before
