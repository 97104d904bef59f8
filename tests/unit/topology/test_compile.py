"""From a file to a graph: paths, the order of mistakes, a file and its text alike, a thousand nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.compiling import conditional, topology
from mesh.errors import TopologyError
from mesh.topology import compile_file, compile_text
from tests.unit.topology.given import FOLDER, GOOD, LAYERS, changed, compiled, told


def rooted(models: str) -> str:
    return changed("mesh: v1", f"mesh: v1\nmodels: {models}")


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("nowhere", "'nowhere' cannot be used: there is no such folder beside the topology file"),
        ("given.py", "'given.py' cannot be used: there is no such folder beside the topology file"),
        ("/nowhere/at/all", "'/nowhere/at/all' cannot be used: there is no such folder beside the topology file"),
        ('"a\\0b"', "'a\\x00b' cannot be used: it cannot be looked at"),
        ("x" * 300, f"'{'x' * 56}... cannot be used: File name too long"),
    ],
)
def test_a_model_root_that_cannot_be_used_is_told(models: str, problem: str) -> None:
    assert told(rooted(models)) == [f"2:9: the model root {problem}"]


def test_a_model_root_that_leads_in_a_circle_is_told(tmp_path: Path) -> None:
    os.symlink(tmp_path / "circle", tmp_path / "circle")
    (problem,) = told(rooted("circle"), tmp_path)
    assert problem.startswith("2:9: the model root 'circle' cannot be used: ")


def test_a_model_root_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "t.yaml"
    file.write_text(rooted("../models"))
    graph = compile_file(file, LAYERS).graph
    assert graph.model_root == str(tmp_path.resolve() / "models")
    assert graph.file == str(file)
    assert compiled(GOOD).graph.model_root == str(FOLDER)


def test_models_are_not_looked_for_where_the_model_root_is_wrong() -> None:
    text = changed(":Scale\n    with: {divide_by: 16}", ":FromFile\n    with: {model: nope.onnx}", rooted("nowhere"))
    problem = "2:9: the model root 'nowhere' cannot be used: there is no such folder beside the topology file"
    assert told(text) == [problem]
    assert told(text.replace("models: nowhere", "models: 5")) == [
        "2:9: 'models' has to be a text, not 5 (put it in quotes)"
    ]


def test_a_file_and_its_text_are_the_same_topology(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(GOOD)
    from_file = compile_file(file, LAYERS)
    from_text = compile_text(GOOD, LAYERS, file=str(file), folder=tmp_path)
    assert from_file.graph == from_text.graph
    assert from_file.plan("two") == from_text.plan("two")


def test_a_text_lies_in_the_working_directory_if_not_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    graph = compile_text(GOOD, LAYERS).graph
    assert (graph.file, graph.model_root) == ("<text>", str(FOLDER))


def test_a_mistake_begins_with_the_file_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.yaml").write_text(changed("mesh: v1", "mesh: v2"))
    monkeypatch.chdir(tmp_path)
    for path in (Path("t.yaml"), tmp_path / "t.yaml"):
        with pytest.raises(TopologyError) as raised:
            compile_file(path, LAYERS)
        assert str(raised.value) == f"{path}:1:7: error: 'mesh' has to be 'v1', not 'v2'"


def test_mistakes_of_every_pass_are_told_together_in_the_order_of_the_file() -> None:
    text = changed("mesh: v1", "mesh: v2\nmodels: nowhere")  # the shape of the file; its surroundings
    text = changed("divide_by: 16", "divide_by: x", text)  # arguments
    text = changed("sample_nodes:Model\n    with", "sample_nodes:Modle\n    with", text)  # classes
    text = changed("[small, large]", "[small, lagre]", text)  # wiring
    text = changed("small.p\n", "small.q\n", text)  # types
    text = changed("[large]", "[large, lost]", text)  # placements
    assert [problem.partition(": ")[0] for problem in told(text)] == [
        "1:7", "2:9", "9:23", "18:11", "23:21", "26:6", "30:28",
    ]  # fmt: skip


def test_a_file_of_a_thousand_nodes_is_compiled_as_a_small_one_is() -> None:
    count, chains = 1000, 10
    made = compile_text(topology(count), LAYERS)
    assert [node.name for node in made.graph.nodes] == [f"n{index}" for index in range(count)]
    assert made.graph.node("n999").inputs == {"x": "n989.x"}
    assert all(str(node.takes["x"]) == str(node.gives["x"]) == "FP32[rows, 64]" for node in made.graph.nodes)
    plan = made.plan("chains")
    assert [(piece.worker, piece.exit, len(piece.nodes)) for piece in plan.partitions] == [
        (f"w{chain}", f"n{count - chains + chain}", count // chains) for chain in range(chains)
    ]
    assert len(made.plan("processes").partitions) == count
    assert len(made.plan("fused").partitions) == chains


def test_a_thousand_conditions_are_read_and_joined() -> None:
    graph = compile_text(conditional(1000), LAYERS).graph
    assert graph.node("n0").when == "max(first.x) > 0.0 and mean(first.x) < 0.5"
    assert sum(node.reads == ("first.x",) for node in graph.nodes) == 998
    assert len(graph.node("answer").branches) == 999


def test_a_mistake_in_each_of_a_thousand_nodes_is_told_a_thousand_times() -> None:
    with pytest.raises(TopologyError) as raised:
        compile_text(topology(1000, divide_by="x"), LAYERS)
    assert [(problem.line, problem.column) for problem in raised.value.problems] == [
        (8 + 5 * index, 23) for index in range(1000)
    ]
    assert {problem.text for problem in raised.value.problems} == {"'divide_by' has to be a number, not 'x'"}
