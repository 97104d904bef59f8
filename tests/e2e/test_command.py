"""The command `mesh` against a running mesh, as a person types it: on a terminal, into pipes, and with mistakes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.cli.jsonable import json_of_tensors
from mesh.cli.main import main
from mesh.errors import RequestError
from scripts.record_golden import GOLDEN, Golden
from tests.harness.meshes import ROOT
from tests.harness.processes import DEADLINE_S, MESH, MeshUp, StartMesh, run_mesh
from tests.harness.terminal import on_terminal

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

SERIAL = "topologies/serial.yaml"
DIGITS = f"image=@{ROOT}/models/digits_sample.npz"
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def mesh(start_shared_mesh: StartMesh) -> MeshUp:
    return start_shared_mesh(SERIAL, "--placement", "processes")


@pytest.fixture(scope="module")
def address(mesh: MeshUp) -> str:
    return mesh.ready()


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.read(GOLDEN / "serial.json")


@pytest.fixture
def ten(tmp_path: Path, golden: Golden) -> str:
    """The recorded request as an argument."""
    np.save(tmp_path / "ten.npy", golden.cases[0].request["image"])
    return f"image=@{tmp_path}/ten.npy"


@pytest.fixture
def silent() -> Generator[str]:
    """The address of somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"grpc://127.0.0.1:{listener.getsockname()[1]}"


# ===== call =====


def test_call_prints_a_row_a_line_and_nothing_but_text_where_it_is_piped(
    address: str, ten: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", address, "-i", ten]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].split() == ["row", "label:", "INT64[10]", "probabilities:", "FP32[10,", "10]"]
    assert [line.split()[:2] for line in lines[1:11]] == [[str(row), digit] for row, digit in enumerate("6594882393")]
    assert lines[11].endswith(" ms")
    assert len(lines) == 12
    assert ESCAPE not in told.out
    assert told.err == ""


def test_call_gives_the_whole_answer_as_json(
    address: str, ten: str, golden: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", address, "-i", ten, "--json", "--timings"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = golden.cases[0].result
    assert not isinstance(expected, RequestError)
    assert told["outputs"]["label"] == json_of_tensors(expected)["label"]
    found = np.array(told["outputs"]["probabilities"]["data"], np.float32)
    np.testing.assert_allclose(found, expected["probabilities"], rtol=0, atol=golden.tolerance)
    assert [timing["node"] for timing in told["node_timings"]] == ["scale", "embed", "head"]
    assert all(timing["rows"] == 10 and timing["compute_ms"] > 0 for timing in told["node_timings"])
    assert told["elapsed_ms"] > 0
    assert told["request_id"]


def test_call_shows_who_did_what(mesh: MeshUp, address: str, ten: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", address, "-i", ten, "--timings"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for node in ("scale", "embed", "head"):
        assert [node, node, str(mesh.pid(node)), "10"] in [line[:4] for line in lines]


def test_call_shows_twenty_rows_and_saves_all(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "answer.npz"
    assert main(["call", address, "-i", DIGITS, "-o", str(saved)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 23
    assert lines[21] == "… 879 more rows (--json shows all, -o saves them)"
    with np.load(saved) as found, np.load(ROOT / "models" / "digits_sample.npz") as sample:
        assert (found["label"] == sample["label"]).mean() > 0.95
        assert found["probabilities"].shape == (899, 10)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["-i", "image=[1,2,3]"],
            1,
            "INVALID_ARGUMENT: tensor 'image' has shape [1, 3] where FP32[rows, 64] is needed",
        ),
        (["-i", DIGITS, "--graph", "nope"], 1, "NOT_FOUND: no graph is called 'nope' here; there is: serial"),
        (["-i", DIGITS, "--timeout", "1us"], 1, "DEADLINE_EXCEEDED: "),
        (["-i", "picture=[1]"], 2, "--input picture=[1]: there is no input 'picture'; the graph takes image"),
        ([], 2, "--input is missing for image: FP32[rows, 64]; write image=VALUE or image=@FILE"),
    ],
)
def test_call_says_what_is_wrong_in_one_line(
    address: str, arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", address, *arguments]) == code
    said = capsys.readouterr()
    assert said.err.startswith(told)
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_call_at_a_worker_that_is_no_gateway_points_to_the_gateway(
    mesh: MeshUp, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (worker,) = mesh.folder.glob("*/head-0.sock")
    assert main(["call", f"unix:{worker}", "-i", DIGITS]) == 1
    assert capsys.readouterr().err == f"NOT_FOUND: unix:{worker} serves no graph: ask the gateway of the mesh\n"


def test_call_is_coloured_on_a_terminal(address: str, ten: str) -> None:
    with on_terminal("call", address, "-i", ten) as terminal:
        assert terminal.wait() == 0
        assert f"{ESCAPE}[1m" in terminal.shown


def test_call_says_what_it_waits_for_and_leaves_on_ctrl_c(silent: str) -> None:
    with on_terminal("call", silent) as terminal:
        terminal.until(f"waiting for {silent} ...")
        terminal.interrupt()
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.shown


def test_a_reader_that_has_seen_enough_gets_no_complaint(address: str) -> None:
    call = subprocess.Popen(
        [MESH, "call", address, "-i", DIGITS, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert call.stdout is not None
    assert call.stderr is not None
    with call, call.stdout, call.stderr:
        call.stdout.read(10)
        call.stdout.close()
        assert call.stderr.read() == ""
        assert call.wait(DEADLINE_S) == 1


# ===== load =====


def load(address: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["load", address, "-i", DIGITS, "--warm-up", "0s", *arguments, "--json"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    return json.loads(told.out)


def test_load_keeps_so_many_in_flight_in_a_closed_loop(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = load(address, "-c", "4", "-n", "40", "--rows", "3", capsys=capsys)
    assert told["plan"]["mode"] == "closed"
    assert told["plan"]["concurrency"] == 4
    assert told["requests"] == {
        "warm_up": 0,
        "sent": 40,
        "answered": 40,
        "failed": 0,
        "unanswered": 0,
        "not_sent_full": 0,
        "not_sent_late": 0,
    }
    assert told["rate_per_s"]["answered"] > 0
    assert told["latency_s"]["count"] == 40
    percentiles = [told["latency_s"][name] for name in ("p50", "p90", "p95", "p99", "p99_9", "max")]
    assert percentiles == sorted(percentiles)
    assert [(node["node"], node["workers"], node["rows"]) for node in told["nodes"]] == [
        ("scale", ["scale"], 120),
        ("embed", ["embed"], 120),
        ("head", ["head"], 120),
    ]
    assert told["errors"] == []


@pytest.mark.parametrize("mode", ["constant", "poisson"])
def test_load_sends_at_a_rate_in_an_open_loop(address: str, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = load(address, "-r", "200", *(["--poisson"] if mode == "poisson" else []), "-n", "40", capsys=capsys)
    assert told["plan"]["mode"] == mode
    assert told["rate_per_s"]["asked"] == 200
    assert told["requests"]["answered"] == 40
    assert told["send_lag_s"]["count"] == 40


def test_load_reports_in_tables_and_saves_json(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "report.json"
    assert main(["load", address, "-i", DIGITS, "-n", "10", "--warm-up", "10ms", "-o", str(saved)]) == 0
    told = capsys.readouterr()
    assert "sent 10, answered 10, failed 0" in told.out.splitlines()
    assert [line.split()[0] for line in told.out.splitlines() if " mean " in line][-3:] == ["scale", "embed", "head"]
    assert ESCAPE not in told.out
    assert told.err == ""
    assert json.loads(saved.read_text())["requests"]["answered"] == 10


def test_load_counts_what_fails_and_ends_with_status_1_when_nothing_was_answered(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", address, "-i", "image=[1,2]", "-n", "5", "--warm-up", "0s", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["requests"]["failed"] == 5
    assert [(error["code"], error["count"]) for error in told["errors"]] == [("INVALID_ARGUMENT", 5)]
    assert "not one request was answered" in told["remarks"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-i", DIGITS, "--rows", "0"], "--rows 0: the inputs have 899 rows"),
        (["-i", DIGITS, "--rows", "900"], "--rows 900: the inputs have 899 rows"),
        (["-i", "image=[]"], "--rows 1: the inputs have 0 rows"),
        (["-i", DIGITS, "-o", "/nowhere/x.json"], "/nowhere/x.json: No such file or directory"),
    ],
)
def test_load_sends_nothing_when_it_is_asked_wrongly(
    address: str, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", address, *arguments]) == 2
    assert capsys.readouterr().err == f"{told}\n"


def test_load_shows_progress_on_a_terminal_and_reports_so_far_on_ctrl_c(address: str) -> None:
    with on_terminal("load", address, "-i", DIGITS, "-d", "1h", "--warm-up", "0s") as terminal:
        terminal.until(" answered, 0 failed, 1 in flight")
        terminal.interrupt()
        assert terminal.wait() == 130
        assert "interrupted; requests cancelled in flight" in terminal.shown
        assert "Traceback" not in terminal.shown


# ===== up =====


def test_up_on_a_port_in_use_names_it_and_starts_nothing(silent: str) -> None:
    ended = run_mesh("up", SERIAL, "--listen", silent)
    assert ended.returncode == 2
    assert ended.stderr == f"{silent} cannot be bound: it is in use\n"


def test_a_worker_that_cannot_listen_ends_the_mesh_with_status_2(start_mesh: StartMesh, mesh: MeshUp) -> None:
    # A socket on which somebody answers is told only by binding it.
    (taken,) = mesh.folder.glob("*/head-0.sock")
    other = start_mesh("topologies/web_single.yaml", "--listen", f"unix:{taken}")
    assert other.wait() == 2
    assert any(line.endswith(f"unix:{taken} is in use") for line in other.lines)
    assert "mesh: gateway is set up wrongly; stopping" in other.lines


@pytest.mark.parametrize(
    ("model", "told"),
    [("nope.onnx", "there is no file nope.onnx"), ("broken.onnx", "onnxruntime cannot load it")],
)
def test_up_with_a_model_that_is_missing_or_broken_names_the_line(tmp_path: Path, model: str, told: str) -> None:
    (tmp_path / "broken.onnx").write_bytes((ROOT / "models" / "digits_mlp.onnx").read_bytes()[:5000])
    file = tmp_path / "wrong.yaml"
    text = (ROOT / "topologies" / "synchronous.yaml").read_text().replace("digits_mlp.onnx", model)
    file.write_text(text.replace("models: ../models", "models: ."))
    line = next(number for number, one in enumerate(file.read_text().splitlines(), start=1) if model in one)
    ended = run_mesh("up", str(file), "--listen", "grpc://127.0.0.1:0")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{file}:{line}:")
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_up_on_a_terminal_leaves_on_ctrl_c_without_a_traceback() -> None:
    with on_terminal("up", "topologies/web_single.yaml", "--listen", "grpc://127.0.0.1:0") as terminal:
        terminal.until("mesh: ready")
        terminal.interrupt()
        assert terminal.wait() == 0
        assert "mesh: SIGINT: draining; once more to leave at once" in terminal.shown
        assert "Traceback" not in terminal.shown
