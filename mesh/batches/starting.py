"""A batch to begin, or to go on with: everything that can be wrong is found here, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mesh.batches.columns import feeds_of_plan
from mesh.batches.folder import OutputFolder
from mesh.batches.inputs import Input
from mesh.batches.opening import check_within, open_input, reopen_input
from mesh.batches.plan import BatchPlan, plan_batch
from mesh.errors import SetupError
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphBatch

__all__ = ["Started", "check_batch", "join_batch", "start_batch"]


@dataclass(frozen=True, slots=True)
class Started:
    """A batch that can run."""

    folder: OutputFolder
    plan: BatchPlan
    source: Input
    """Open."""
    done: bool = False
    """It is done already: the manifest is there."""


def start_batch(
    graph: Graph,
    batch: GraphBatch,
    *,
    resume: bool = False,
    inputs_within: Sequence[Path] | None = None,
    outputs_within: Sequence[Path] | None = None,
) -> Started:
    """Look at input, graph and output, and write the plan down.

    Args:
        graph: What is run.
        batch: How.
        resume: Whether to go on with what is in the output folder. A shard size that is not given is that of before.
        inputs_within: Folders that the input has to lie in; anywhere where None.
        outputs_within: Folders that the output has to lie in.

    Raises:
        SetupError: What is wrong. Where it is to go on: that it is not the same batch, and what is different.
    """
    folder = _folder(batch, resume, inputs_within, outputs_within)
    before, done = _before(folder) if resume else (None, False)
    if before is not None and not batch.shard_rows:
        batch = replace(batch, shard_rows=before.shard_rows)
    source = open_input(Path(batch.input), batch.input_format, within=inputs_within)
    try:
        plan = plan_batch(graph, batch, source)
        if before is not None:
            _check_same(folder, before, plan)
        if not done:
            # Whoever came first has written it: perhaps another one, meanwhile.
            written = folder.begin(before or plan, source.marks)
            _check_same(folder, written, plan)
            before = written
    except BaseException:
        source.close()
        raise
    return Started(folder, before or plan, source, done)


def check_batch(
    graph: Graph,
    batch: GraphBatch,
    *,
    resume: bool = False,
    inputs_within: Sequence[Path] | None = None,
    outputs_within: Sequence[Path] | None = None,
) -> None:
    """Look at a batch as `start_batch` does, write nothing, and of text files read only the beginning.

    Raises:
        SetupError: What is wrong, as far as that shows.
    """
    folder = _folder(batch, resume, inputs_within, outputs_within)
    before = _before(folder)[0] if resume else None
    if before is not None and not batch.shard_rows:
        batch = replace(batch, shard_rows=before.shard_rows)
    source = open_input(Path(batch.input), batch.input_format, within=inputs_within, glance=True)
    try:
        plan = plan_batch(graph, batch, source)
    finally:
        source.close()
    if before is not None:
        if source.marks is not None and before.identity.looks_like(plan.identity):
            # Of text only the beginning was read: its size and its time have to do.
            plan = replace(plan, identity=before.identity)
        _check_same(folder, before, plan)


def _before(folder: OutputFolder) -> tuple[BatchPlan | None, bool]:
    """The plan of what is in a folder, if any, and whether it is done."""
    manifest = folder.manifest()
    return (folder.plan(), False) if manifest is None else (_planned(folder, manifest), True)


def _folder(
    batch: GraphBatch, resume: bool, inputs_within: Sequence[Path] | None, outputs_within: Sequence[Path] | None
) -> OutputFolder:
    # Before anything is said of what is there.
    if outputs_within is not None:
        check_within([batch.output], outputs_within, "output", "write to")
    if inputs_within is not None:
        check_within([batch.input], inputs_within, "input", "read")
    folder = OutputFolder(Path(batch.output).absolute())
    folder.check(Path(batch.input), resume=resume)
    return folder


def _check_same(folder: OutputFolder, before: BatchPlan, plan: BatchPlan) -> None:
    if found := before.differences(plan):
        told = "\n".join(f"  {one}" for one in found)
        raise SetupError(f"output {folder.root}: what is there is of another batch:\n{told}")


def join_batch(graph: Graph, output: str, *, inputs_within: Sequence[Path] | None = None) -> Started:
    """Take part in a batch that was started, as a worker does.

    Raises:
        SetupError: There is none, or it is of another graph; or its input is not what it was.
    """
    folder = OutputFolder(Path(output))
    plan = folder.plan()
    if plan is None:
        manifest = folder.manifest()
        if manifest is None:
            raise SetupError(f"output {folder.root}: no batch was started here")
        plan = _planned(folder, manifest)
    if plan.graph_digest != graph.digest:
        raise SetupError(f"the graph was {plan.graph_digest[:12]} when the batch began, and is {graph.digest[:12]}")
    if inputs_within is not None:
        check_within([plan.path], inputs_within, "input", "read")
    source = reopen_input(Path(plan.path), plan.identity, folder.marks(plan))
    feeds_of_plan(graph.inputs, plan.columns, source)
    return Started(folder, plan, source, done=folder.manifest() is not None)


def _planned(folder: OutputFolder, manifest: dict[str, object]) -> BatchPlan:
    try:
        told: dict[str, object] = manifest["plan"]  # type: ignore[assignment]
        return BatchPlan.from_json(told)
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(f"output {folder.root}: its manifest cannot be read: {error}") from None
