"""`mesh batch`: its arguments, what it refuses before anything starts, and how batches are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.cli.batch_arguments import batch_of_arguments
from mesh.cli.batch_told import batch_page, batch_table, json_of_batch, raise_unless_done, standing
from mesh.cli.main import main, parser
from mesh.cli.terminal import show
from mesh.errors import Cancelled, InvalidInput, SetupError
from mesh.jobs.batches.messages import Batch
from mesh.jobs.records import JobState
from mesh.topology.graph_jobs import GraphBatch

DIGITS = "topologies/synchronous.yaml"


def parsed(*more: str) -> GraphBatch:
    arguments = parser().parse_args(["batch", "run", DIGITS, "--input", "in.parquet", "--output", "/out", *more])
    return batch_of_arguments(arguments)


def test_a_batch_is_what_its_arguments_say() -> None:
    given = ["--map", "pixel_*=image", "--map", "a=b=other", "--keep", "id", "--outputs", "label", "--shard-rows", "10"]
    more = ["--request-rows", "5", "--on-error", "stop-after=3", "--parameter", "lang=en", "--parameter", "n=2"]
    assert parsed(*given, *more, "--format", "csv") == GraphBatch(
        input=str(Path("in.parquet").absolute()),
        input_format="csv",
        columns={"image": "pixel_*", "other": "a=b"},
        output="/out",
        keep=("id",),
        outputs=("label",),
        shard_rows=10,
        request_rows=5,
        stop_after=3,
        parameters={"lang": "en", "n": 2},
    )


@pytest.mark.parametrize(("policy", "most"), [("keep-going", None), ("stop", 0), ("stop-after=0", 0)])
def test_a_policy_is_how_many_rows_may_fail(policy: str, most: int | None) -> None:
    assert parsed("--on-error", policy).stop_after == most


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--map", "picture"], "write COLUMN=TENSOR"),
        (["--map", "a=x", "--map", "b=x"], "tensor 'x' is fed twice; several columns: A,B=x"),
        (["--parameter", "=1"], "write NAME=VALUE"),
    ],
)
def test_arguments_that_say_nothing_are_told(more: list[str], text: str) -> None:
    with pytest.raises(SetupError, match=text):
        parsed(*more)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--on-error", "never"], "'never' is none of keep-going, stop and stop-after=N"),
        (["--shard-rows", "0"], "'0' is no number of rows"),
        (["--workers", "0"], "'0' is no number from 1 to 256"),
    ],
)
def test_arguments_out_of_bounds_are_told(more: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*more)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ([], "tensor 'image': the input has no column of that name"),
        (["--map", "pictur=image"], "the input has no column 'pictur' (did you mean 'picture'?)"),
        (["--map", "id=image"], "column 'id' is string, and tensor 'image' takes FP32"),
        (["--map", "picture=image", "--keep", "none"], "the input has no column 'none'"),
        (["--map", "picture=image", "--outputs", "labels"], "did you mean 'label'?"),
    ],
)
def test_what_is_wrong_with_a_batch_is_told_before_anything_is_started(
    tmp_path: Path, more: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    pictures = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(128, np.float32)), 64)
    pq.write_table(pa.table({"id": ["a", "b"], "picture": pictures}), source)
    assert main(["batch", "run", DIGITS, "--input", str(source), "--output", str(output), *more]) == 2
    assert text in capsys.readouterr().err
    assert not output.exists()


def batch(state: JobState, **changes: Any) -> Batch:
    told: dict[str, Any] = {"rows": 1000, "rows_done": 700, "shards": 10, "shards_done": 7, "submit_time": 0.0}
    return Batch(id="b1", state=state, spec=GraphBatch(input="/in", output="/out"), **told | changes)


def test_a_batch_is_told_in_a_line_on_a_page_and_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    running = batch(JobState.RUNNING, rows_failed=3, start_time=1.0, schedule="nightly", due_time=60.0)
    assert standing(running) == "running: 700 of 1,000 rows, 3 failed"
    assert standing(Batch(id="b", state=JobState.QUEUED)) == "queued: its rows are not counted yet"
    failed = batch(JobState.FAILED, error=InvalidInput("no\x1b[31m such file"), start_time=1.0, end_time=3.5)
    assert standing(failed).endswith("INVALID_ARGUMENT: no\\x1b[31m such file")
    show(batch_page(running), batch_page(failed), batch_table([running, failed]))
    told = capsys.readouterr().out
    for part in ("nightly, due 1970-01-01 00:01:00 UTC", "7 of 10", "/in", "took       2.5s", "700 of 1,000"):
        assert part in told
    assert "\x1b" not in told


def test_a_batch_is_told_to_programs() -> None:
    assert json_of_batch(batch(JobState.FAILED, error=InvalidInput("no"), end_time=1.5)) == {
        "id": "b1",
        "state": "failed",
        "input": "/in",
        "output": "/out",
        "rows": 1000,
        "rows_done": 700,
        "rows_failed": 0,
        "shards": 10,
        "shards_done": 7,
        "submitted": "1970-01-01T00:00:00+00:00",
        "ended": "1970-01-01T00:00:01.500000+00:00",
        "error": {"code": "INVALID_ARGUMENT", "text": "no"},
    }


def test_what_a_batch_ended_in_is_how_the_command_ends() -> None:
    raise_unless_done(batch(JobState.DONE))
    with pytest.raises(InvalidInput, match="no"):
        raise_unless_done(batch(JobState.FAILED, error=InvalidInput("no")))
    with pytest.raises(Cancelled):
        raise_unless_done(batch(JobState.CANCELLED))
