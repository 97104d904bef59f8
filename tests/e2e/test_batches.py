"""Batches from the command line, over real processes: done, interrupted, killed, and gone on with."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from tests.harness.processes import DEADLINE_S, MESH, StartMesh, run_mesh, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.one_engine,
    pytest.mark.skipif(sys.platform != "linux", reason="what is killed takes its children along only there"),
]

DIGITS = "topologies/synchronous.yaml"
ROWS = 2000
SHARD_ROWS = 20
KILLS = 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "pictures.parquet"
    sample: Any = np.load("models/digits_sample.npz")["image"].astype(np.float32) / 16
    images = np.tile(sample, (-(-ROWS // len(sample)), 1))[:ROWS]
    column = pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), 64)
    pq.write_table(pa.table({"id": [f"no. {row}" for row in range(ROWS)], "picture": column}), path)
    return path


def command(pictures: Path, output: Path, *more: str) -> list[str]:
    asked = ["batch", "run", DIGITS, "--input", str(pictures), "--map", "picture=image", "--output", str(output)]
    return [*asked, "--keep", "id", *more]


def labels(output: Path) -> dict[int, int]:
    """Each row's label; every row is there once."""
    table = pq.read_table(output / "parts")
    rows: list[int] = table.column("row").to_pylist()
    assert len(rows) == len(set(rows))
    assert table.column("id").to_pylist() == [f"no. {row}" for row in rows]
    return dict(zip(rows, table.column("label").to_pylist(), strict=True))


@pytest.fixture(scope="module")
def expected(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, int]:
    """What a batch gives that nothing happens to."""
    output = tmp_path_factory.mktemp("out") / "whole"
    done = run_mesh(*command(pictures, output, "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["rows"], told["rows_done"], told["rows_failed"]) == ("done", ROWS, ROWS, 0)
    assert sorted(os.listdir(output)) == ["errors.parquet", "manifest.json", "parts"]
    return labels(output)


@contextmanager
def running(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """A batch on its way."""
    process = subprocess.Popen(
        [MESH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def written(output: Path) -> dict[str, float]:
    """Parts that are visible, and when each was made."""
    folder = output / "parts"
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} if folder.exists() else {}


def until_some_more(process: subprocess.Popen[str], output: Path, more: int) -> None:
    """Wait until so many parts were written since, or the batch is done."""
    wanted = len(written(output)) + more
    wait_until(lambda: len(written(output)) >= wanted or process.poll() is not None, "no parts were written")


def test_every_placement_gives_the_same_rows(pictures: Path, expected: dict[int, int], tmp_path: Path) -> None:
    done = run_mesh(*command(pictures, tmp_path / "out", "--placement", "apart", "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert "done: 2,000 of 2,000 rows" in done.stdout
    assert labels(tmp_path / "out") == expected
    again = run_mesh(*command(pictures, tmp_path / "out"))
    assert again.returncode == 2
    assert "it is not empty" in again.stderr


def test_a_batch_that_is_interrupted_says_how_to_go_on_and_does(
    pictures: Path, expected: dict[int, int], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    asked = command(pictures, output, "--shard-rows", str(SHARD_ROWS))
    with running(*asked) as process:
        until_some_more(process, output, 5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, told
    assert "the batch is not done; go on with: " in told
    assert told.rstrip().endswith("--resume")
    before = written(output)
    assert 5 <= len(before) < ROWS // SHARD_ROWS
    done = run_mesh(*asked, "--resume")
    assert done.returncode == 0, done.stderr
    after = written(output)
    assert {name: after[name] for name in before} == before, "what is written is not done again"
    assert labels(output) == expected


def test_a_batch_that_is_killed_again_and_again_has_each_row_once(
    pictures: Path, expected: dict[int, int], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    asked = command(pictures, output, "--shard-rows", str(SHARD_ROWS), "--workers", "2")
    chance = random.Random(7)
    for kill in range(KILLS):
        with running(*asked, *(["--resume"] if kill else [])) as process:
            until_some_more(process, output, chance.randrange(1, 15))
            process.kill()
    done = run_mesh(*asked, "--resume")
    assert done.returncode == 0, done.stderr
    assert labels(output) == expected
    assert sorted(os.listdir(output)) == ["errors.parquet", "manifest.json", "parts"]


def test_a_running_mesh_takes_batches_in_the_folders_that_its_file_allows(
    start_mesh: StartMesh, pictures: Path, tmp_path: Path
) -> None:
    text = Path(DIGITS).read_text().replace("../models", str(Path("models").absolute()))
    (tmp_path / "mesh.yaml").write_text(f"{text}\njobs:\n  batches: {{inputs: [{pictures.parent}], outputs: [out]}}\n")
    mesh = start_mesh(str(tmp_path / "mesh.yaml"), "--data", str(tmp_path / "data"))
    address = mesh.ready()
    output = tmp_path / "out" / "one"
    asked = ["--input", str(pictures), "--map", "picture=image", "--output", str(output), "--keep", "id"]
    begun = run_mesh("batch", "start", address, *asked, "--wait", "--json")
    assert begun.returncode == 0, begun.stderr
    batch = json.loads(begun.stdout)
    assert (batch["state"], batch["rows_done"]) == ("done", ROWS)
    assert len(labels(output)) == ROWS
    assert json.loads(run_mesh("batch", "get", address, batch["id"], "--json").stdout) == batch
    assert batch["id"] in run_mesh("batch", "list", address).stdout
    for verb, text in (("cancel", "done: 2,000 of 2,000 rows"), ("resume", "is done: there is nothing to go on with")):
        told = run_mesh("batch", verb, address, batch["id"])
        assert text in told.stdout + told.stderr
    elsewhere = run_mesh("batch", "start", address, *asked[:-3], str(tmp_path / "elsewhere"))
    assert "does not lie in a folder that batches may write to" in elsewhere.stderr
