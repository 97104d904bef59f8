"""A small graph, its answers by hand, and whole batches over files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mesh.batches import BatchRunner, OutputFolder, Patience, Started, Summary, finish_batch, start_batch
from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, RequestError
from mesh.signature import Signature, TensorSpec
from mesh.tensors import Tensors
from mesh.topology.graph import Graph, GraphLimits, GraphNode, LayerSettings
from mesh.topology.graph_jobs import GraphBatch

HASTY = Patience(attempts=2, first_s=0.0, most_s=0.0)
SIGNATURE = "x: FP32[rows, 3] -> total: FP32[rows], twice: FP32[rows, 3]"


def graph_of(
    signature: str = SIGNATURE, *, digest: str = "", layers: tuple[LayerSettings, ...] = (), name: str = "sums"
) -> Graph:
    """A graph of one node, which takes and gives what the graph does."""
    told = Signature.parse(signature)
    takes, gives = dict(told.inputs), dict(told.outputs)
    node = GraphNode(
        name="model",
        kind="predict",
        uses="nodes.some:Model",
        arguments={},
        inputs={tensor: tensor for tensor in takes},
        takes=takes,
        gives=gives,
        digest=digest,
        layers=layers,
    )
    return Graph(
        name=name,
        file="sums.yaml",
        model_root="/models",
        limits=GraphLimits(),
        inputs=takes,
        nodes=(node,),
        outputs={tensor: f"model.{tensor}" for tensor in gives},
    )


class Sums:
    """Adds up three numbers a row. What it refuses is in the first of them.

    -1: InvalidInput that names the row; -2: NodeFailed that names none; anything in `passing` is raised once.
    """

    def __init__(self, *passing: RequestError) -> None:
        self.passing = list(passing)
        self.requests: list[int] = []
        """Rows of each request."""

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        x = request["x"]
        self.requests.append(len(x))
        if self.passing:
            raise self.passing.pop(0)
        if (named := np.flatnonzero(x[:, 0] == -1)).size:
            raise InvalidInput("is minus one", node="model", tensor="x", row=int(named[0]))
        if (x[:, 0] == -2).any():
            raise NodeFailed("choked", node="model")
        return Tensors({"total": x.sum(axis=1), "twice": x * 2})


def numbers(rows: int, bad: Mapping[int, float] | None = None) -> Any:
    """`x`, three numbers a row, and `id`, a text; by row, what the first of the numbers is instead."""
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    for row, value in (bad or {}).items():
        x[row, 0] = value
    return pa.table({"id": [f"row {row}" for row in range(rows)], "x": lists(x)})


def lists(array: np.ndarray[Any, Any]) -> Any:
    """FP32[rows, n] as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def parquet_file(path: Path, table: Any, *, group: int = 64) -> Path:
    """A file, in row groups of so many rows."""
    pq.write_table(table, path, row_group_size=group)
    return path


def batch_of(source: Path, output: Path, **settings: Any) -> GraphBatch:
    """A batch, small enough that it has several shards and requests."""
    told: dict[str, Any] = {"input": str(source), "output": str(output), "shard_rows": 50, "request_rows": 16}
    return GraphBatch(**told | settings)


def runner(started: Started, handler: Any, inputs: Mapping[str, TensorSpec]) -> BatchRunner:
    """Runs its shards, without waits."""
    return BatchRunner(started.folder, started.plan, started.source, inputs, handler, patience=HASTY)


async def run_batch(graph: Graph, batch: GraphBatch, handler: Any, *, resume: bool = False) -> Summary:
    """All of it: those shards that are not written yet, and its end."""
    started = start_batch(graph, batch, resume=resume)
    async with runner(started, handler, graph.inputs) as running:
        for number in range(started.plan.shards):
            if number not in started.folder.committed():
                await running.run(started.plan.shard(number))
    return finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)


def results(output: Path) -> Any:
    """The rows of all parts."""
    return pq.read_table(OutputFolder(output).parts)


def errors(output: Path) -> list[dict[str, Any]]:
    """The rows that failed."""
    found: list[dict[str, Any]] = pq.read_table(output / "errors.parquet").to_pylist()
    return found
