"""`PartWriter`: the results of a shard, which become visible all at once; and `Commit`, what a part says of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mesh.batches.arrow import Batch, Schema, pa, parquet
from mesh.batches.durable import force, give_name, unique
from mesh.batches.encode import output_fields
from mesh.batches.folder import OutputFolder
from mesh.batches.plan import BatchPlan, Shard
from mesh.errors import RequestError, SetupError

__all__ = ["ERROR_COLUMNS", "Commit", "PartWriter", "commit_of", "errors_schema", "read_commit", "results_schema"]

_KEY = b"mesh.batch"
_GROUP_ROWS = 16_384
"""Rows of a row group: few, so that most of a shard is encoded while its last rows are still being asked."""
_GROUP_BYTES = 16 << 20
ERROR_COLUMNS = ("row", "code", "message", "node", "tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a part says of itself, in its own metadata."""

    plan: str
    """Digest of the plan."""
    shard: int
    start: int
    stop: int
    rows_done: int
    """Rows of the input that are in it."""
    rows_failed: int
    """Rows that are in its file of errors. With `rows_done` they are all rows from `start` to `stop`."""
    rows_written: int
    """Its own rows: more than `rows_done` where the graph makes several of one."""
    errors: str = ""
    """The file of errors; empty where there are none."""


def results_schema(plan: BatchPlan, columns: Schema) -> Schema:
    """The columns of a part: the number of the row, what is kept, the outputs."""
    kept = [columns.field(name) for name in plan.keep]
    fields = [(one.name, one.type) for one in kept]
    return pa.schema([("row", pa.int64()), *fields, *output_fields(plan.outputs)])


def errors_schema(plan: BatchPlan, columns: Schema) -> Schema:
    """The columns of errors. What is kept and called like one of ours is called `input.NAME`."""
    ours = [("row", pa.int64()), *((name, pa.string()) for name in ERROR_COLUMNS[1:])]
    kept = [(f"input.{name}" if name in ERROR_COLUMNS else name, columns.field(name).type) for name in plan.keep]
    return pa.schema([*ours, *kept])


def read_commit(path: Path) -> Commit:
    """What a part says of itself.

    Raises:
        SetupError: It is no part of a batch, or it is broken.
    """
    try:
        metadata: dict[bytes, bytes] = parquet.read_metadata(path).metadata or {}
        return Commit(**json.loads(metadata[_KEY]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path.name}: it is no part of a batch, or it is broken: {error}") from None


def commit_of(folder: OutputFolder, plan: BatchPlan, number: int) -> Commit | None:
    """What the part of a shard says; None where it is not written.

    Raises:
        SetupError: The part is broken, or of another batch.
    """
    path = folder.part(number)
    if not path.exists():
        return None
    commit, shard = read_commit(path), plan.shard(number)
    if (commit.plan, commit.shard, commit.start, commit.stop) != (plan.digest, number, shard.start, shard.stop):
        raise SetupError(f"output {folder.root}: {path.name} is of another batch")
    return commit


class PartWriter:
    """Results of one attempt at a shard. Used by one thread at a time.

    Args:
        folder: Where.
        plan: Of what.
        shard: Which.
        columns: Names and types of the input's columns.

    Raises:
        OSError: The system cannot write.
    """

    def __init__(self, folder: OutputFolder, plan: BatchPlan, shard: Shard, columns: Schema) -> None:
        self._folder, self._plan, self._shard = folder, plan, shard
        self.schema = results_schema(plan, columns)
        self._errors_schema = errors_schema(plan, columns)
        self._path = folder.writing / unique(f"part-{shard.number:05d}")
        self._errors_path = folder.errors / f"{unique(f'errors-{shard.number:05d}')}.parquet"
        texts = [one.name for one in self.schema if not _numbers(one.type)]
        # Dictionaries shorten texts; numbers that models give are hardly ever the same.
        self._writer: Any = parquet.ParquetWriter(self._path, self.schema, use_dictionary=texts)
        self._errors: Any = None
        self._held: list[Batch] = []
        self._held_rows = self._held_bytes = 0
        self.rows_done = self.rows_failed = self._rows_written = 0

    def add(self, tables: Sequence[Batch], rows_done: int) -> None:
        """Rows in their order, and of how many rows of the input they are."""
        for table in tables:
            self._held.append(table)
            self._held_rows += table.num_rows
            self._held_bytes += table.nbytes
        self.rows_done += rows_done
        if self._held_rows >= _GROUP_ROWS or self._held_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held, self.schema), row_group_size=_GROUP_ROWS)
            self._rows_written += self._held_rows
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def add_errors(self, rows: Sequence[int], errors: Sequence[RequestError], kept: Batch) -> None:
        """Rows that failed: their numbers, why, and the columns that are kept of them."""
        if not rows:
            return
        if self._errors is None:
            self._errors = parquet.ParquetWriter(self._errors_path, self._errors_schema)
        texts = [[getattr(error, name) for error in errors] for name in ("code", "text", "node", "tensor")]
        columns = [pa.array(rows, pa.int64()), *(pa.array(one, pa.string()) for one in texts), *kept.columns]
        self._errors.write_table(pa.Table.from_arrays(columns, schema=self._errors_schema))
        self.rows_failed += len(rows)

    def commit(self) -> tuple[Commit, bool]:
        """Make it all visible, unless another attempt was first.

        Returns:
            What the part that is visible says, and whether it is this one.

        Raises:
            OSError: The system cannot write; then nothing is visible of it.
            RuntimeError: Rows are missing, or were added twice.
        """
        shard = self._shard
        if self.rows_done + self.rows_failed != shard.stop - shard.start:
            raise RuntimeError(f"shard {shard} has {self.rows_done} rows and {self.rows_failed} errors")
        self._flush()
        if self._errors is not None:
            self._errors.close()
            force(self._errors_path)
            force(self._folder.errors)
        commit = Commit(
            plan=self._plan.digest,
            shard=shard.number,
            start=shard.start,
            stop=shard.stop,
            rows_done=self.rows_done,
            rows_failed=self.rows_failed,
            rows_written=self._rows_written,
            errors=self._errors_path.name if self._errors is not None else "",
        )
        self._writer.add_key_value_metadata({_KEY: json.dumps(asdict(commit)).encode()})
        self._writer.close()
        force(self._path)
        visible = self._folder.part(shard.number)
        if give_name(self._path, visible):
            return commit, True
        self.abandon()
        return read_commit(visible), False

    def abandon(self) -> None:
        """Take away what was written and is not visible. Harmless once it is."""
        for writer in (self._writer, self._errors):
            if writer is not None:
                with suppress(OSError, ValueError):
                    writer.close()
        with suppress(OSError):
            self._path.unlink()
        if self._errors is not None and not self._is_visible():
            with suppress(OSError):
                self._errors_path.unlink()

    def _is_visible(self) -> bool:
        """Whether the part that is visible is this one: a link may have been made though its folder was not forced."""
        try:
            return read_commit(self._folder.part(self._shard.number)).errors == self._errors_path.name
        except SetupError:
            return False


def _numbers(kind: Any) -> bool:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))
