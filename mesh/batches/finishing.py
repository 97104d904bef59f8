"""The end of a batch: every row of the input is accounted for, the errors of all shards are put together, and the
manifest appears.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from mesh.batches.arrow import Schema, parquet
from mesh.batches.durable import force, unique
from mesh.batches.folder import OutputFolder
from mesh.batches.inputs import reason
from mesh.batches.parts import Commit, commit_of, errors_schema
from mesh.batches.plan import BatchPlan
from mesh.errors import SetupError

__all__ = ["Summary", "commits_of", "finish_batch"]

MANIFEST_VERSION = 1
_MOST_PARTS_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A batch that is done."""

    rows: int
    rows_done: int
    rows_failed: int
    rows_written: int
    shards: int
    began: float
    """Seconds since the epoch, as is `ended`."""
    ended: float

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Self:
        """What a manifest says. Raises KeyError or ValueError where it is none."""
        return cls(
            **{name: manifest[name] for name in ("rows", "rows_done", "rows_failed", "rows_written")},
            shards=len(manifest["parts"]),
            began=datetime.fromisoformat(manifest["began"]).timestamp(),
            ended=datetime.fromisoformat(manifest["ended"]).timestamp(),
        )


def commits_of(folder: OutputFolder, plan: BatchPlan) -> Iterator[Commit]:
    """What each part says that is there, in order.

    Raises:
        SetupError: A part is broken, or of another batch.
    """
    for number in sorted(folder.committed()):
        if (commit := commit_of(folder, plan, number)) is not None:
            yield commit


def finish_batch(folder: OutputFolder, plan: BatchPlan, columns: Schema, *, began: float, ended: float) -> Summary:
    """Make the results whole. Harmless where they are already.

    Args:
        folder: Where they are.
        plan: Of what.
        columns: Names and types of the input's columns.
        began: Seconds since the epoch.
        ended: The same.

    Raises:
        SetupError: A part is missing or broken; names some that are.
        OSError: The system cannot read or write.
    """
    manifest = folder.manifest()
    if manifest is None:
        commits = list(commits_of(folder, plan))
        _check_all(folder, plan, commits)
        _merge_errors(folder, commits, errors_schema(plan, columns))
        manifest = _manifest(folder, plan, commits, began, ended)
        folder.finish(manifest)
    folder.clean()
    return Summary.of(manifest)


def _check_all(folder: OutputFolder, plan: BatchPlan, commits: list[Commit]) -> None:
    there = {commit.shard for commit in commits}
    missing = [number for number in range(plan.shards) if number not in there]
    if missing:
        told = ", ".join(folder.part(number).name for number in missing[:_MOST_PARTS_TOLD])
        raise SetupError(f"output {folder.root}: {len(missing)} parts are missing: {told}")
    for commit in commits:
        if commit.rows_done + commit.rows_failed != commit.stop - commit.start:
            raise SetupError(f"output {folder.root}: {folder.part(commit.shard).name} does not have all of its rows")


def _merge_errors(folder: OutputFolder, commits: list[Commit], schema: Schema) -> None:
    made = folder.writing / unique("errors")
    try:
        with parquet.ParquetWriter(made, schema) as writer:
            for commit in commits:
                found = 0
                for table in _tables(folder, commit):
                    writer.write_table(table.cast(schema))
                    found += table.num_rows
                if found != commit.rows_failed:
                    text = f"the errors of {folder.part(commit.shard).name} are not all there"
                    raise SetupError(f"output {folder.root}: {text}")
        force(made)
        made.replace(folder.errors_path)
        force(folder.root)
    finally:
        with suppress(OSError):
            made.unlink()


def _tables(folder: OutputFolder, commit: Commit) -> Iterator[Any]:
    if not commit.errors:
        return
    try:
        with parquet.ParquetFile(folder.errors / Path(commit.errors).name) as file:
            for group in range(file.metadata.num_row_groups):
                yield file.read_row_group(group)
    except (OSError, ValueError) as error:
        raise SetupError(f"output {folder.root}: errors of shard {commit.shard}: {reason(error)}") from None


def _manifest(
    folder: OutputFolder, plan: BatchPlan, commits: list[Commit], began: float, ended: float
) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {
            "file": os.path.relpath(folder.part(commit.shard), folder.root),
            "start": commit.start,
            "stop": commit.stop,
            "rows_done": commit.rows_done,
            "rows_failed": commit.rows_failed,
            "rows_written": commit.rows_written,
            "bytes": folder.part(commit.shard).stat().st_size,
        }
        for commit in commits
    ]
    return {
        "mesh_batch": MANIFEST_VERSION,
        "rows": plan.rows,
        **{name: sum(part[name] for part in parts) for name in ("rows_done", "rows_failed", "rows_written")},
        "began": datetime.fromtimestamp(began, UTC).isoformat(),
        "ended": datetime.fromtimestamp(ended, UTC).isoformat(),
        "plan_digest": plan.digest,
        "plan": plan.to_json(),
        "errors": folder.errors_path.name,
        "parts": parts,
    }
