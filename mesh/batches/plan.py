"""`BatchPlan`: what is run over what, and how it is cut. An immutable value, kept beside the results.

Two runs of one plan write the same rows. So a batch is gone on with only where the plan made now is the one it began
with; `differences` says what is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mesh.batches.columns import feeds_of, kept_columns
from mesh.batches.identity import InputIdentity, hashed
from mesh.batches.inputs import Input
from mesh.context import Parameter
from mesh.errors import SetupError
from mesh.layers import Queue
from mesh.signature import TensorSpec
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphBatch
from mesh.topology.source import did_you_mean

__all__ = ["BatchPlan", "Shard", "plan_batch"]

MOST_SHARDS = 100_000
"""Shards of one batch: each is a file of the results."""
SHARDS = 16
"""Shards that a batch is cut into unless they would be too small or too large for it: so many can share the work."""
SHARD_ROWS = {"files": (16, 4096)}
"""Format -> the smallest and largest shard, in rows, where nobody said."""
_TABLE_SHARD_ROWS = (256, 65_536)
REQUEST_ROWS = {"files": 64}
"""Format -> rows of a request, where nobody said."""
_TABLE_REQUEST_ROWS = 4096
MOST_IN_FLIGHT = 4
"""Requests at once: one is read, one written, and the graph should not wait for either."""
REQUEST_BYTES = 4 << 20
"""Columns of a request, at most, but for a single row: a bound on memory, beside the one on messages."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows that one worker takes on at once."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What is run over what."""

    graph: str
    graph_digest: str
    models: dict[str, str]
    """Node -> digest of its model."""
    path: str
    """The input, absolute."""
    identity: InputIdentity
    columns: dict[str, tuple[str, ...]]
    """Input of the graph -> the columns that feed it."""
    keep: tuple[str, ...]
    outputs: dict[str, TensorSpec]
    """Outputs that are written."""
    shard_rows: int
    request_rows: int
    request_bytes: int
    in_flight: int
    """Requests of a shard that are with the graph at once."""
    parameters: dict[str, Parameter]

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return self.identity.rows

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.shard_rows)

    def shard(self, number: int) -> Shard:
        """One of them, from 0."""
        start = number * self.shard_rows
        return Shard(number, start, min(start + self.shard_rows, self.rows))

    @property
    def digest(self) -> str:
        """Of everything that decides what is written; the input's place and its times do not."""
        told = self.to_json()
        for file in told["input"]["files"]:
            del file["mtime_ns"]
        del told["path"]
        return hashed(json.dumps(told, sort_keys=True).encode())

    def differences(self, now: Self) -> list[str]:
        """What the plan made now has otherwise, for people; empty where nothing that matters is."""
        found: list[str] = []
        if now.graph != self.graph:
            found.append(f"the graph was {self.graph} and is {now.graph}")
        elif now.graph_digest != self.graph_digest:
            found.append(f"the graph was {self.graph_digest[:12]} and is {now.graph_digest[:12]}")
        for node in dict.fromkeys([*self.models, *now.models]):
            before, after = self.models.get(node, "none"), now.models.get(node, "none")
            if before != after:
                found.append(f"the model of node {node} was {before[:12]} and is {after[:12]}")
        found += self.identity.differences(now.identity)
        for tensor in dict.fromkeys([*self.columns, *now.columns]):
            before, after = (",".join(one.columns.get(tensor, ())) for one in (self, now))
            if before != after:
                found.append(f"tensor {tensor} was fed by {_short(before)} and is by {_short(after)}")
        for what, before, after in (
            ("the columns kept", self.keep, now.keep),
            ("the outputs", tuple(self.outputs), tuple(now.outputs)),
        ):
            if before != after:
                found.append(f"{what} were {_listed(before)} and are {_listed(after)}")
        if self.shard_rows != now.shard_rows:
            found.append(f"a shard had {self.shard_rows} rows and has {now.shard_rows}")
        if self.parameters != now.parameters:
            found.append(f"the parameters were {self.parameters} and are {now.parameters}")
        return found

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "graph": self.graph,
            "graph_digest": self.graph_digest,
            "models": self.models,
            "path": self.path,
            "input": self.identity.to_json(),
            "columns": {tensor: list(columns) for tensor, columns in self.columns.items()},
            "keep": list(self.keep),
            "outputs": {name: [spec.datatype, list(spec.shape)] for name, spec in self.outputs.items()},
            "shard_rows": self.shard_rows,
            "request_rows": self.request_rows,
            "request_bytes": self.request_bytes,
            "in_flight": self.in_flight,
            "parameters": self.parameters,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises KeyError, TypeError or ValueError where it is something else."""
        names = ("graph", "graph_digest", "path", "shard_rows", "request_rows", "request_bytes", "in_flight")
        return cls(
            **{name: told[name] for name in names},
            models=dict(told["models"]),
            identity=InputIdentity.from_json(told["input"]),
            columns={tensor: tuple(columns) for tensor, columns in told["columns"].items()},
            keep=tuple(told["keep"]),
            outputs={name: TensorSpec(datatype, tuple(shape)) for name, (datatype, shape) in told["outputs"].items()},
            parameters=dict(told["parameters"]),
        )


def plan_batch(graph: Graph, batch: GraphBatch, source: Input) -> BatchPlan:
    """Look at a batch as a whole, before anything runs.

    Args:
        graph: What is run.
        batch: How.
        source: The input, opened.

    Raises:
        SetupError: A column, tensor or output does not exist or does not fit; or the shards would be too many.
    """
    specs = graph.output_specs
    for name in batch.outputs:
        if name not in specs:
            raise SetupError(f"outputs: the graph has no output {name!r} ({did_you_mean(name, specs)})")
    outputs = {name: specs[name] for name in batch.outputs or specs}
    if "row" in outputs:
        raise SetupError("outputs: 'row' is the number of the row in every result: give the output another name")
    feeds = feeds_of(graph.inputs, batch.columns, source)
    shard_rows = _shard_rows(batch.shard_rows, source)
    request_rows, in_flight = _requests(batch.request_rows, graph, source.format, shard_rows)
    if not batch.shard_rows:
        # Whole requests: what was decoded is then handed over as it is.
        shard_rows = -(-shard_rows // request_rows) * request_rows
    return BatchPlan(
        graph=graph.name,
        graph_digest=graph.digest,
        models={node.name: node.digest for node in graph.nodes if node.digest},
        path=str(Path(batch.input).absolute()),
        identity=source.identity,
        columns={feed.tensor: feed.columns for feed in feeds},
        keep=kept_columns(batch.keep, source.schema, list(outputs)),
        outputs=outputs,
        shard_rows=shard_rows,
        request_rows=request_rows,
        request_bytes=min(REQUEST_BYTES, max(1, graph.limits.max_message_bytes // 4)),
        in_flight=in_flight,
        parameters=dict(batch.parameters),
    )


def _shard_rows(given: int, source: Input) -> int:
    if given < 0:
        raise SetupError(f"shard rows: {given} is less than 1")
    least, most = SHARD_ROWS.get(source.format, _TABLE_SHARD_ROWS)
    rows = given or max(least, min(-(-source.rows // SHARDS), most), -(-source.rows // MOST_SHARDS))
    if -(-source.rows // rows) > MOST_SHARDS:
        raise SetupError(f"shard rows: {source.rows} rows in shards of {rows} are more than {MOST_SHARDS} shards")
    return rows


def _requests(given: int, graph: Graph, input_format: str, shard_rows: int) -> tuple[int, int]:
    """Rows a request, and how many at once: no more than what every queue takes on."""
    if given < 0:
        raise SetupError(f"request rows: {given} is less than 1")
    queues = [
        Queue.model_validate(layer.settings, context={"from_file": True}).max_rows
        for node in graph.nodes
        for layer in node.layers
        if layer.name == "queue"
    ]
    most = min(queues, default=MOST_IN_FLIGHT * _TABLE_REQUEST_ROWS)
    rows = given or max(1, min(REQUEST_ROWS.get(input_format, _TABLE_REQUEST_ROWS), shard_rows, most // 2))
    return rows, max(1, min(MOST_IN_FLIGHT, most // rows))


def _short(text: str) -> str:
    return f"{text[:60]}..." if len(text) > 60 else text or "none"


def _listed(names: tuple[str, ...]) -> str:
    return _short(", ".join(names))
