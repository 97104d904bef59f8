"""What `mesh stats`, `mesh graph --stats` and `mesh call` make of what a mesh tells them."""

from __future__ import annotations

import json
import re

import pytest

from mesh.cli.counted import json_of_statistics, line_notes, node_notes
from mesh.cli.main import main
from mesh.cli.reports import json_of_error, json_of_report, missing_branches
from mesh.cli.stats import tables
from mesh.cli.terminal import show
from mesh.context import BranchOutcome, BranchState, Context, JoinOutcome
from mesh.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.topology.render import Vertex, mermaid, svg
from mesh.transports.statistics import (
    ArmStatistics,
    BranchStatistics,
    GraphStatistics,
    MissingWorker,
    NodeStatistics,
    ShadowStatistics,
    Statistics,
    WorkerTold,
)
from tests.harness.meshes import ROOT, TOPOLOGIES

QUORUM = TOPOLOGIES / "parallel_quorum.yaml"
NODE = NodeStatistics(
    node="left",
    requests=1200,
    rows=2400,
    rows_skipped=7,
    in_flight=2,
    errors={"INTERNAL": 98, "UNAVAILABLE": 100},
    elapsed_s=2.0,
    queue_s=4.8,
    compute_s=1.5,
    wire_s=0.5,
    batches=600,
    batch_rows=(0, 0, 599, 0, 0, 0, 0, 0, 0, 0, 0, 1),
)
TOLD = Statistics(
    graph="parallel-quorum",
    graphs=(GraphStatistics(graph="parallel-quorum", requests=1200, rows=2400, elapsed_s=6.0),),
    nodes=(NodeStatistics(node="scale", requests=1, rows=1, elapsed_s=0.001, batches=1, batch_rows=(1,)), NODE),
    branches=(
        BranchStatistics(
            node="answer", branch="left", answered=1000, failed=98, late=2, behind_s=2.004, max_behind_s=0.75
        ),
        BranchStatistics(node="answer", branch="right", answered=1100),
    ),
    shadows=(ShadowStatistics(node="top", target="left", rows_alike=5, rows_unlike=3, failed=2, dropped=1),),
    arms=(ArmStatistics(split="ab", node="one", rows=3), ArmStatistics(split="ab", node="two", rows=1)),
    workers=(WorkerTold("front", 7, 61.04), WorkerTold("left", 8, 2.0)),
    missing=(MissingWorker("right", 0, Unavailable("gone")), MissingWorker("right", 1, DeadlineExceeded("late"))),
)


def shown(told: Statistics, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(*tables(told))
    return [re.sub(r"  +", "  ", line) for line in capsys.readouterr().out.splitlines()]


def test_a_table_shows_means_and_what_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(TOLD, capsys)
    assert lines[0] == "parallel-quorum: 1,200 requests, 2,400 rows, 0 failed, 0 in flight, 5.00 ms each"
    left = next(line for line in lines if line.startswith("left  1,200"))
    assert left == "left  1,200  2,400  7  198  2  2.00  2.00  2.50  0.50"
    assert "left: 98 INTERNAL, 100 UNAVAILABLE" in lines
    assert "left  4.0  0  0  599  0  0  0  0  0  0  0  0  1" in lines
    assert "answer  left  1,000  98  2  0  2.00  750.00" in lines
    assert "ab  one  3  75.0 %" in lines
    assert "top  left  5  3  2  1" in lines
    assert "counted by front (7) for 61s, left (8) for 2s" in lines
    assert lines[-2:] == ["right did not tell: UNAVAILABLE: gone", "right-1 did not tell: DEADLINE_EXCEEDED: late"]


def test_a_mesh_that_has_done_nothing_yet_is_shown_without_means(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(
        Statistics(graph="g", graphs=(GraphStatistics(graph="g"),), nodes=(NodeStatistics(node="a"),)), capsys
    )
    assert lines[0] == "g: 0 requests, 0 rows, 0 failed, 0 in flight, - ms each"
    assert "a  0  0  0  0  0  -  -  -  -" in lines


def test_names_from_outside_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "[red]\x1b[2J"
    told = Statistics(
        graph=bad,
        graphs=(GraphStatistics(graph=bad),),
        nodes=(NodeStatistics(node=bad, requests=1, errors={bad: 1}, batches=3),),
        branches=(BranchStatistics(node=bad, branch=bad),),
        shadows=(ShadowStatistics(node=bad, target=bad),),
        arms=(ArmStatistics(split=bad, node=bad),),
        workers=(WorkerTold(bad, 1, 1.0),),
        missing=(MissingWorker(bad, 0, Unavailable(bad)),),
    )
    show(*tables(told))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("[red]") >= 10


def test_json_tells_everything_with_its_units() -> None:
    told = json.loads(json.dumps(json_of_statistics(TOLD)))
    node = told["nodes"][1]
    assert node["node"] == "left"
    assert (node["failed"], node["errors"]) == (198, {"INTERNAL": 98, "UNAVAILABLE": 100})
    assert (node["elapsed_ms"], node["queue_row_ms"], node["compute_ms"], node["wire_ms"]) == (2000, 4800, 1500, 500)
    assert node["batch_rows"] == [{"max_rows": 4, "batches": 599}, {"max_rows": None, "batches": 1}]
    (join,) = told["joins"]
    assert [(one["branch"], one["failed"], one["max_behind_ms"]) for one in join["branches"]] == [
        ("left", 98, 750),
        ("right", 0, 0),
    ]
    assert told["arms"][0] == {"split": "ab", "node": "one", "rows": 3}
    assert told["shadows"][0]["rows_unlike"] == 3
    assert told["missing"][1] == {
        "worker": "right",
        "replica": 1,
        "error": {"code": "DEADLINE_EXCEEDED", "text": "late"},
    }


# On pictures.


def test_notes_tell_of_nodes_and_of_lines_and_not_of_what_is_not_known() -> None:
    plan = compile_file(QUORUM, LAYERS).plan("apart")
    notes = node_notes(TOLD)
    assert notes["scale"] == "1 row · 1.00 ms"
    assert notes["left"] == "2,400 rows · 2.00 ms · 198 failed"
    assert notes["top"] == "3 unlike"
    lines = line_notes(TOLD, plan)
    assert lines[Vertex("node", "scale"), Vertex("node", "left")] == "2,400 rows"
    assert lines[Vertex("input", "image"), Vertex("node", "scale")] == "1 row"
    assert lines[Vertex("node", "left"), Vertex("node", "answer")] == "1,000 answered · 98 failed · 2 late"
    assert lines[Vertex("node", "right"), Vertex("node", "answer")] == "1,100 answered"
    assert (Vertex("node", "scale"), Vertex("node", "right")) not in lines


def test_pictures_show_the_notes() -> None:
    plan = compile_file(QUORUM, LAYERS).plan("apart")
    notes, lines = node_notes(TOLD), line_notes(TOLD, plan)
    drawn = mermaid(plan, notes, lines)
    assert '<br>2,400 rows · 2.00 ms · 198 failed"]' in drawn
    assert '<br>1,000 answered · 98 failed · 2 late"| node_answer' in drawn
    picture = svg(plan, notes, lines)
    assert "2,400 rows · 2.00 ms · 198 failed</text>" in picture
    assert "label, probabilities · 1,100 answered</text>" in picture
    assert "→ left as X: 2,400 rows" in picture, "a line to several takers tells each in its tooltip"
    assert mermaid(plan) == mermaid(plan, {}, {})
    assert svg(plan) == svg(plan, {}, {})


# Who answered in joins.

JOIN = JoinOutcome(
    "answer",
    (
        BranchOutcome("a", BranchState.ANSWERED, 3),
        BranchOutcome("b", BranchState.FAILED, 0, Overloaded("full\n", node="b", retry_after_s=0.5)),
        BranchOutcome("c", BranchState.FAILED, 0, InvalidInput("bad", node="scale", tensor="x", row=2)),
        BranchOutcome("d", BranchState.LATE, 0, DeadlineExceeded("was not there in time", node="d")),
        BranchOutcome("e", BranchState.WITHOUT_ROWS),
    ),
)


def test_a_line_tells_of_each_branch_that_a_join_did_without() -> None:
    assert list(missing_branches([JOIN, JoinOutcome("other", JOIN.branches[:1])])) == [
        r"answer: b failed: RESOURCE_EXHAUSTED: full\n",
        "answer: c failed: INVALID_ARGUMENT: node scale: row 2: bad",
        "answer: d was late",
    ]


def test_json_tells_of_every_branch() -> None:
    found = json_of_report(Context(joins=[JOIN]))
    assert found["joins"][0]["node"] == "answer"
    assert [(one["branch"], one["state"], one["rows"]) for one in found["joins"][0]["branches"]] == [
        ("a", "answered", 3),
        ("b", "failed", 0),
        ("c", "failed", 0),
        ("d", "late", 0),
        ("e", "without rows", 0),
    ]
    assert found["joins"][0]["branches"][2]["error"] == {
        "code": "INVALID_ARGUMENT",
        "text": "bad",
        "node": "scale",
        "tensor": "x",
        "row": 2,
    }
    assert json_of_error(Overloaded("full", retry_after_s=0.5))["retry_after_ms"] == 500
    assert json_of_report(Context(joins=[])) == {}


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["stats", "localhost:8001"],
            2,
            "'localhost:8001' is no address: write grpc://host:port or unix:/absolute/path",
        ),
        (["stats", "unix:/nowhere"], 1, "UNAVAILABLE: unix:/nowhere cannot be reached: nobody answers there"),
        (
            ["graph", str(QUORUM), "--stats", "unix:/nowhere"],
            1,
            "UNAVAILABLE: unix:/nowhere cannot be reached: nobody answers there",
        ),
        (
            ["call", "unix:/nowhere", "--stream", "-o", "x.npz"],
            2,
            "--output saves a whole answer: it does not go with --stream",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.err == f"{told}\n"
    assert said.out == ""


def test_the_page_explains_every_number() -> None:
    page = (ROOT / "docs" / "statistics.md").read_text()
    told = json_of_statistics(TOLD)
    numbers = {*told["nodes"][0], *told["joins"][0]["branches"][0], *told["shadows"][0], *told["arms"][0]}
    unexplained = [name for name in numbers - {"node", "branch", "target", "split"} if f"`{name}`" not in page]
    assert unexplained == []
