"""(h) What a batch costs beside a bare loop: 10^6 pictures of digits, from one Parquet file to another."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.measure import summary
from mesh.batches import BatchRunner, finish_batch, start_batch
from mesh.batches.arrow import pa, parquet
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.topology import compile_file
from mesh.topology.graph_jobs import GraphBatch

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGY = ROOT / "topologies" / "synchronous.yaml"
ROWS = 1_000_000
ROUNDS = 5
BARE_ROWS = 4096
"""Rows at once in the bare loop: larger ones were slower."""


async def run() -> dict[str, Any]:
    """Rows a second of both, in turn, each round in a process of its own; and the most memory that ours took."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "digits.parquet"
        pictures(source)
        ours: list[float] = []
        bare: list[float] = []
        resident: list[int] = []
        for _ in range(ROUNDS):
            for way, times in (("ours", ours), ("bare", bare)):
                found = measured(way, source, Path(folder) / way)
                times.append(found["seconds"] / ROWS)
                if way == "ours":
                    resident.append(found["resident_bytes"])
    paired = summary(ours, bare)
    return {
        "target_share_of_bare": 0.85,
        "target_mib": 600,
        "rows": ROWS,
        **paired.to_json(),
        "share_of_bare": round(1 / paired.ratio, 3),
        "rows_per_s": round(1e6 / paired.ours_us),
        "resident_mib": round(max(resident) / (1 << 20)),
    }


def pictures(path: Path) -> None:
    """The sample, repeated; in the row groups that pyarrow makes unless told otherwise."""
    sample: Any = np.load(ROOT / "models" / "digits_sample.npz")["image"].astype(np.float32) / 16
    with parquet.ParquetWriter(path, pa.schema([("image", pa.list_(pa.float32(), 64))])) as writer:
        table = np.tile(sample, (-(-ROWS // len(sample)), 1))[:ROWS]
        column = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), 64)
        writer.write_table(pa.table({"image": column}))


def measured(way: str, source: Path, output: Path) -> dict[str, Any]:
    """One run, by a child: the memory of another run must not be counted with it."""
    command = [sys.executable, "-m", "bench.batches", way, str(source), str(output)]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    for one in sorted(output.rglob("*"), reverse=True):
        one.rmdir() if one.is_dir() else one.unlink()
    output.rmdir()
    return found


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
        for batch in parquet.ParquetFile(source).iter_batches(BARE_ROWS):
            images = batch.column(0).flatten().to_numpy().reshape(-1, 64)
            label: Any
            probabilities: Any
            label, probabilities = session.run(["label", "probabilities"], {"X": images})
            rows = np.arange(row, row + len(label))
            row += len(label)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), 10)
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(rows), pa.array(label), lists], schema=schema))
    return time.perf_counter() - began


async def batch(source: Path, output: Path) -> float:
    """The same by a graph: planned, run, finished. Seconds."""
    plan = compile_file(TOPOLOGY, LAYERS).plan("fused")
    async with LocalMesh(plan) as mesh:
        began = time.perf_counter()
        started = start_batch(plan.graph, GraphBatch(input=str(source), output=str(output)))
        async with BatchRunner(started.folder, started.plan, started.source, plan.graph.inputs, mesh.root) as runner:
            for number in range(started.plan.shards):
                await runner.run(started.plan.shard(number))
        done = finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)
        assert (done.rows_done, done.rows_failed) == (ROWS, 0)
        return time.perf_counter() - began


def resident_bytes() -> int:
    """The most memory that this process has taken."""
    with open("/proc/self/status") as file:
        told = next(line for line in file if line.startswith("VmHWM:"))
    return int(told.split()[1]) * 1024


def main() -> None:
    """One run in this process; told as JSON."""
    import uvloop

    way, source, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    seconds = bare_loop(source, output) if way == "bare" else uvloop.run(batch(source, output))
    print(json.dumps({"seconds": seconds, "resident_bytes": resident_bytes()}))
    sys.stdout.flush()
    os.sync()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main()
    else:
        print(asyncio.run(run()))
