"""Rows of files through a graph: input, shards, output, manifest.

`start_batch` looks at everything and writes a plan down; `BatchRunner` runs one shard after another, in any number of
processes; `finish_batch` makes the results whole. Every row of the input ends exactly once, as a row of the results or
as a row of `errors.parquet`. Needs pyarrow: the extra `batch`.
"""

from mesh.batches.asking import Patience
from mesh.batches.finishing import Summary, commits_of, finish_batch
from mesh.batches.folder import OutputFolder
from mesh.batches.inputs import Input
from mesh.batches.opening import open_input
from mesh.batches.parts import Commit, read_commit
from mesh.batches.plan import BatchPlan, Shard, plan_batch
from mesh.batches.results import TooManyErrors
from mesh.batches.running import BatchRunner
from mesh.batches.starting import Started, check_batch, join_batch, start_batch

__all__ = [
    "BatchPlan",
    "BatchRunner",
    "Commit",
    "Input",
    "OutputFolder",
    "Patience",
    "Shard",
    "Started",
    "Summary",
    "TooManyErrors",
    "check_batch",
    "commits_of",
    "finish_batch",
    "join_batch",
    "open_input",
    "plan_batch",
    "read_commit",
    "start_batch",
]
