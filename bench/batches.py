"""(h) What a batch costs beside a bare loop: 10^6 pictures of digits, from one Parquet file to another.

Ours is `mesh batch run` with all that belongs to it: a supervisor, a store that has everything on disk, a worker on
jobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.measure import summary
from mesh.batches.arrow import pa, parquet

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGY = "topologies/synchronous.yaml"
ROWS = 1_000_000
TIMES = 4
"""How much larger the input is over which memory should be what it was."""
ROUNDS = 7
REQUEST_ROWS = 4096
"""Rows at once, of both: of the bare loop's requests larger ones were slower, and two cores were. Unless told so, ours
would ask for half of what the queue of the graph takes, two at a time; one whole one was faster here."""
SAMPLE_S = 0.05


async def run() -> dict[str, Any]:
    """Rows a second of both, in turn, each round in processes of its own; and the most memory that ours took."""
    return await asyncio.to_thread(_measured)


def _measured() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source = folder / "digits.parquet"
        pictures(source)
        ours: list[dict[str, Any]] = []
        bare: list[float] = []
        for _ in range(ROUNDS):
            ours.append(command(source, folder / "ours"))
            bare.append(bare_loop_apart(source, folder / "bare"))
        more = folder / "more"
        more.mkdir()
        for number in range(TIMES):
            os.link(source, more / f"digits-{number}.parquet")
        large = command(more, folder / "large", ROWS * TIMES)
    paired = summary([one["seconds"] / ROWS for one in ours], [seconds / ROWS for seconds in bare])
    return {
        "target_share_of_bare": 0.85,
        "target_mib": 600,
        "rows": ROWS,
        **paired.to_json(),
        "share_of_bare": round(1 / paired.ratio, 3),
        "rows_per_s": round(1e6 / paired.ours_us),
        "whole_s": round(statistics.median(one["whole_s"] for one in ours), 2),
        "resident_mib": _mib(max(one["resident_bytes"] for one in ours)),
        "times": TIMES,
        "resident_mib_of_more": _mib(large["resident_bytes"]),
        "rows_per_s_of_more": round(ROWS * TIMES / large["seconds"]),
    }


def pictures(path: Path) -> None:
    """The sample, repeated; in the row groups that pyarrow makes unless told otherwise."""
    sample: Any = np.load(ROOT / "models" / "digits_sample.npz")["image"].astype(np.float32) / 16
    with parquet.ParquetWriter(path, pa.schema([("image", pa.list_(pa.float32(), 64))])) as writer:
        table = np.tile(sample, (-(-ROWS // len(sample)), 1))[:ROWS]
        column = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), 64)
        writer.write_table(pa.table({"image": column}))


# ===== Ours =====


def command(source: Path, output: Path, rows: int = ROWS) -> dict[str, Any]:
    """One `mesh batch run`: its seconds from when a worker begins the batch to its manifest, and those of the whole
    command; and the most memory that all of its processes took together.
    """
    asked = ["batch", "run", TOPOLOGY, "--input", str(source), "--output", str(output), "--json"]
    asked += ["--request-rows", str(REQUEST_ROWS)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mesh.cli", *asked], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    resident: list[int] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            resident.append(resident_bytes(process.pid))

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        said, _ = process.communicate()
    finally:
        over.set()
        sampling.join()
    told = json.loads(said)
    assert (told["state"], told["rows_done"], told["rows_failed"]) == ("done", rows, 0), told
    whole_s = time.perf_counter() - began
    shutil.rmtree(output)
    started, ended = (datetime.fromisoformat(told[name]) for name in ("started", "ended"))
    return {
        "seconds": (ended - started).total_seconds(),
        "whole_s": whole_s,
        "resident_bytes": max(resident),
    }


def resident_bytes(process: int) -> int:
    """Memory of a process and all below it. What they share counts for each of them."""
    found = 0
    with suppress(OSError):
        found += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for task in os.listdir(f"/proc/{process}/task"):
            below = Path(f"/proc/{process}/task/{task}/children").read_text()
            found += sum(map(resident_bytes, map(int, below.split())))
    return found


def _mib(size: int) -> int:
    return round(size / (1 << 20))


# ===== The bare loop =====


def bare_loop_apart(source: Path, output: Path) -> float:
    """The bare loop in a process of its own: its seconds, without the start of that."""
    asked = [sys.executable, "-m", "bench.batches", str(source), str(output)]
    told = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(output)
    return float(told)


def bare_loop(source: Path, output: Path) -> float:
    """Read, run, write: what anybody would write first. Seconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ROOT / "models" / "digits_mlp.onnx", options, providers=["CPUExecutionProvider"])
    session.run(None, {"X": np.zeros((1, 64), np.float32)})
    output.mkdir()
    schema = pa.schema([("row", pa.int64()), ("label", pa.int64()), ("probabilities", pa.list_(pa.float32(), 10))])
    began = time.perf_counter()
    row = 0
    with parquet.ParquetWriter(output / "out.parquet", schema) as writer:
        for batch in parquet.ParquetFile(source).iter_batches(REQUEST_ROWS):
            images = batch.column(0).flatten().to_numpy().reshape(-1, 64)
            label: Any
            probabilities: Any
            label, probabilities = session.run(["label", "probabilities"], {"X": images})
            rows = np.arange(row, row + len(label))
            row += len(label)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), 10)
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(rows), pa.array(label), lists], schema=schema))
    return time.perf_counter() - began


def main() -> None:
    """The bare loop in this process."""
    print(bare_loop(Path(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
