"""`mesh call --stream`, `mesh stats` and `mesh graph --stats` against a mesh whose join can do without a branch."""

from __future__ import annotations

import json
import os
import signal
import sys
import xml.etree.ElementTree as ET
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.cli.main import main
from tests.harness.meshes import ROOT
from tests.harness.processes import MeshUp, StartMesh

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

QUORUM = """
mesh: v1
name: halves
models: {models}
inputs:
  image: {{datatype: FP32, shape: [-1, 64]}}
nodes:
  scale: {{uses: "nodes.tabular:Scale", with: {{divide_by: 16}}, inputs: {{x: image}}}}
  left: {{uses: "nodes.onnx:OnnxPredict", with: {{model: digits_left.onnx}}, inputs: {{X: scale.x}}}}
  right: {{uses: "nodes.onnx:OnnxPredict", with: {{model: digits_right.onnx}}, inputs: {{X: scale.x}}}}
  answer:
    uses: nodes.aggregate:SoftVote
    inputs: [left, right]
    join: {{quorum: 1, deadline: 400ms}}
outputs: {{label: answer.label}}
"""
BRANCHES = ["left", "right"]
ROWS = 3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("halves") / "halves.yaml"
    file.write_text(QUORUM.format(models=ROOT / "models"))
    return file


@pytest.fixture(scope="module")
def mesh(start_shared_mesh: StartMesh, file: Path) -> MeshUp:
    return start_shared_mesh(str(file), "--placement", "processes")


@pytest.fixture(scope="module")
def address(mesh: MeshUp) -> str:
    return mesh.ready()


@pytest.fixture
def digits(tmp_path: Path) -> str:
    """Three of them as an argument."""
    with np.load(ROOT / "models" / "digits_sample.npz") as sample:
        np.save(tmp_path / "digits.npy", sample["image"][:ROWS])
    return f"image=@{tmp_path}/digits.npy"


@contextmanager
def stopped(pid: int) -> Generator[None]:
    """A process that neither answers nor ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def told(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(list(arguments)) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def counted(address: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    return json.loads(told("stats", address, "--json", *arguments, capsys=capsys))


def test_a_stream_shows_each_event_as_it_comes_and_says_when_nothing_follows(
    address: str, digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told("call", address, "-i", digits, "--stream", capsys=capsys).splitlines()
    words = [line.split() for line in lines]
    assert [line[1] for line in words] == ["ms"] * 4
    times = [float(line[0]) for line in words]
    assert times == sorted(times)
    assert sorted(line[2] for line in words[:2]) == BRANCHES
    assert [line[2] for line in words[2:]] == ["answer", "finished"]
    assert all("label: INT64[3] 6; probabilities: FP32[3, 10] [" in line for line in lines[:2])
    assert lines[2].endswith("label: INT64[3] 6")


def test_a_stream_is_a_json_object_a_line_for_programs(
    address: str, digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = told("call", address, "-i", digits, "--stream", "--json", "--timings", capsys=capsys)
    *branches, answer, finished = [json.loads(line) for line in out.splitlines()]
    assert sorted(event["node"] for event in branches) == BRANCHES
    assert answer["outputs"]["label"]["shape"] == [ROWS]
    assert finished["finished"] is True
    assert {timing["node"] for timing in finished["node_timings"]} == {"scale", "left", "right", "answer"}
    (join,) = finished["joins"]
    assert [(one["branch"], one["state"], one["rows"]) for one in join["branches"]] == [
        ("left", "answered", ROWS),
        ("right", "answered", ROWS),
    ]


def test_a_stream_that_fails_ends_in_its_error(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", address, "-i", "image=[1,2]", "--stream"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("INVALID_ARGUMENT: ")
    assert said.err.count("\n") == 1
    assert "finished" not in said.out


def test_a_call_says_which_branch_was_late_and_the_mesh_counts_it(
    start_mesh: StartMesh, file: Path, digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = start_mesh(str(file), "--placement", "processes")
    address = mesh.ready()
    assert "late" not in told("call", address, "-i", digits, capsys=capsys)
    with stopped(mesh.pid("left")):
        assert "answer: left was late" in told("call", address, "-i", digits, capsys=capsys).splitlines()
        out = told("call", address, "-i", digits, "--stream", capsys=capsys).splitlines()
        assert out[-1] == "answer: left was late"
        found = counted(address, capsys)
        assert [(one["worker"], one["replica"]) for one in found["missing"]] == [("left", 0)]
        assert {node["node"]: node["requests"] for node in found["nodes"]} == {"scale": 3, "right": 3, "answer": 3}
        ((left, right),) = [join["branches"] for join in found["joins"]]
        assert (left["answered"], left["late"], right["answered"]) == (1, 2, 3)
        assert left["max_behind_ms"] > 100
        assert "left did not tell: " in told("stats", address, capsys=capsys)


def test_a_gateway_tells_of_every_worker_and_a_worker_of_itself(
    mesh: MeshUp, address: str, digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {node["node"]: node for node in counted(address, capsys)["nodes"]}
    for _ in range(2):
        told("call", address, "-i", digits, capsys=capsys)
    found = counted(address, capsys)
    workers = ["gateway", "scale", "left", "right", "answer"]
    assert [(one["worker"], one["pid"]) for one in found["workers"]] == [(name, mesh.pid(name)) for name in workers]
    assert (found["graph"], found["missing"]) == ("halves", [])
    assert [(node["node"], node["requests"], node["rows"]) for node in found["nodes"]] == [
        (name, before[name]["requests"] + 2, before[name]["rows"] + 2 * ROWS) for name in workers[1:]
    ]
    assert all(node["compute_ms"] > 0 and node["wire_ms"] > 0 for node in found["nodes"])
    (worker,) = mesh.folder.glob("*/left-0.sock")
    own = counted(f"unix:{worker}", capsys)
    assert [node["node"] for node in own["nodes"]] == ["left"]
    assert own["nodes"][0]["rows"] == before["left"]["rows"] + 2 * ROWS
    assert [one["worker"] for one in counted(address, capsys, "--own")["workers"]] == ["gateway"]
    lines = [line.split() for line in told("stats", address, capsys=capsys).splitlines()]
    right = before["right"]
    shown = ["right", str(right["requests"] + 2), str(right["rows"] + 2 * ROWS), "0", "0", "0"]
    assert shown in [line[:6] for line in lines]


def test_a_picture_shows_what_was_counted(
    address: str, file: Path, digits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told("call", address, "-i", digits, capsys=capsys)
    nodes = counted(address, capsys)["nodes"]
    rows = [node["rows"] for node in nodes]
    draw = ("graph", str(file), "--placement", "processes", "--stats", address)
    drawn = told(*draw, capsys=capsys)
    assert f"<br>{rows[0]} rows · " in drawn
    assert f'<br>{nodes[-1]["requests"]} answered"| node_answer' in drawn
    picture = ET.fromstring(told(*draw, "--format", "svg", capsys=capsys))
    texts = [element.text or "" for element in picture.iter() if element.tag.endswith("text")]
    assert all(any(text.startswith(f"{count} rows · ") for text in texts) for count in rows)
    found = json.loads(told(*draw, "--format", "json", capsys=capsys))
    assert [node["rows"] for node in found["statistics"]["nodes"]] == rows


def test_a_picture_of_another_graph_than_the_one_that_runs_is_refused(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(ROOT / "topologies" / "serial.yaml")
    assert main(["graph", other, "--stats", address]) == 2
    assert capsys.readouterr().err == f"{address} serves the graph 'halves', and {other} is 'serial'\n"
