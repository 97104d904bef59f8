"""Commands that need no mesh, and mistakes on the command line."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mesh.cli.main import main
from tests.harness.meshes import ROOT

SERIAL = str(ROOT / "topologies" / "serial.yaml")
BAD = """
mesh: v1
name: bad
models: {models}
inputs:
  x: {{datatype: FP32, shape: [-1, 64]}}
nodes:
  a: {{uses: "nodes.onnx:OnnxPredict", with: {{model: nope.onnx}}, inputs: {{X: x}}}}
  b: {{uses: "nodes.onnx:OnnxPrdict", with: {{model: digits_mlp.onnx}}, inputs: {{X: x}}}}
outputs: {{l: a.label, m: b.label}}
"""


@pytest.fixture
def bad(tmp_path: Path) -> str:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD.format(models=ROOT / "models"))
    return str(file)


def test_check_passes_over_files_without_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", SERIAL]) == 0
    told = capsys.readouterr()
    assert told.out == f"{SERIAL}: serial: 3 nodes, placements fused, processes: ok\n"
    assert told.err == ""


def test_check_tells_every_mistake_of_every_file_with_its_place(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", bad, SERIAL, "nowhere.yaml"]) == 2
    told = capsys.readouterr()
    mistakes = told.err.splitlines()
    assert mistakes[0].startswith(f"{bad}:8:")
    assert "nope.onnx" in mistakes[0]
    assert mistakes[1].startswith(f"{bad}:9:")
    assert "OnnxPredict" in mistakes[1]
    assert mistakes[2] == "nowhere.yaml:1:1: error: cannot be read: No such file or directory"
    assert mistakes[3:] == ["3 mistakes"]
    assert told.out == f"{SERIAL}: serial: 3 nodes, placements fused, processes: ok\n"


def test_check_tells_of_jobs_and_schedules_in_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "later.yaml"
    batch = "{input: in, output: 'out/{date}'}"
    text = Path(SERIAL).read_text().replace("models: ../models", f"models: {ROOT / 'models'}")
    file.write_text(f"{text}jobs: {{}}\nschedules:\n  nightly: {{cron: '30 2 * * *', batch: {batch}}}\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == (
        f"{file}: serial: 3 nodes, placements fused, processes: ok\n"
        "  jobs: 1 worker with 4 at once, kept in a store of the mesh's own\n"
        "  nightly: a batch at 30 2 * * * (UTC)\n"
    )


@pytest.mark.parametrize("command", ["up", "graph"])
def test_a_file_with_mistakes_goes_no_further(command: str, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, bad]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"{bad}:8:")
    assert told.out == ""


def test_graph_draws_mermaid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", SERIAL, "--placement", "processes"]) == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith("flowchart")
    assert all(node in drawn for node in ("scale", "embed", "head"))


def test_graph_draws_svg_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "serial.svg"
    assert main(["graph", SERIAL, "--format", "svg", "-o", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert ET.parse(file).getroot().tag.endswith("svg")


def test_graph_tells_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", SERIAL, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [node["name"] for node in told["nodes"]] == ["scale", "embed", "head"]


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"mesh", "name", "nodes", "outputs", "placements"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["graph", SERIAL, "--placement", "fussed"], "no placement is called 'fussed'"),
        (["graph", SERIAL, "-o", "/nowhere/x.svg"], "/nowhere/x.svg: No such file or directory"),
        (["up", SERIAL, "--placement", "fussed"], "no placement is called 'fussed'"),
        (["up", SERIAL, "--listen", "localhost:8001"], "'localhost:8001' is no address: write grpc://host:port"),
        (["up", SERIAL, "--listen", "grpc://localhost:99999"], "is no address"),
        (["up", SERIAL, "--workers", "gateway,nope"], "placement 'fused' has no worker 'nope'"),
        (["up", SERIAL, "--placement", "processes", "--workers", "head"], "worker head has no address"),
        (["call", "localhost:8001"], "'localhost:8001' is no address"),
        (["load", "nowhere"], "'nowhere' is no address"),
        (["load", "unix:/nowhere", "--poisson"], "--poisson needs --rate"),
        (["load", "unix:/nowhere", "-n", "0"], "requests is at least 1"),
        (["load", "unix:/nowhere", "-c", "0"], "concurrency is from 1"),
        (["load", "unix:/nowhere", "-r", "-1"], "rate_per_s is above 0"),
        (["worker", "nowhere.json"], "nowhere.json: No such file or directory"),
        (["worker", SERIAL], "serial.yaml: not a launch file"),
    ],
)
def test_what_is_set_up_wrongly_is_told_in_one_line_with_status_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["call", "unix:/nowhere"], ["load", "unix:/nowhere"]])
def test_a_mesh_that_is_not_there_is_told_by_its_address_with_status_1(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err == "UNAVAILABLE: unix:/nowhere cannot be reached: nobody answers there\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["check"], "FILE"),
        (["up", SERIAL, "--grace", "10"], "'10' is not a duration: write a number and a unit"),
        (["up", SERIAL, "--grace", "2h"], "2h is more than an hour"),
        (["call", "unix:/x", "--timeout", "soon"], "'soon' is not a duration"),
        (["load", "unix:/x", "-r", "5", "-c", "2"], "not allowed with"),
        (["graph", SERIAL, "--format", "png"], "invalid choice: 'png'"),
    ],
)
def test_what_cannot_be_parsed_is_told_with_its_usage_and_status_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: mesh")
    assert told in err


@pytest.mark.parametrize("command", ["up", "check", "graph", "call", "load", "schema", "worker"])
def test_every_command_has_a_help_that_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: mesh {command}")
    assert f"`mesh {command}" in told


def test_the_help_lists_the_commands_that_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    listed = [line.split()[0] for line in told.partition("commands:")[2].splitlines() if line.startswith("    ")]
    assert listed[:1] == ["COMMAND"] or listed[:1] == ["up"]
    assert {"up", "check", "graph", "call", "load", "schema"} <= set(listed)
    assert "worker" not in listed
