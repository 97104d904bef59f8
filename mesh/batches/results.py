"""From answers to rows of a part: each row of the input once, as it was answered or as it failed."""

from __future__ import annotations

import numpy as np

from mesh.batches.arrow import Batch, pa
from mesh.batches.asking import Answers
from mesh.batches.encode import encoded
from mesh.batches.inputs import RowsRead
from mesh.batches.parts import PartWriter
from mesh.batches.plan import BatchPlan
from mesh.errors import MeshError, NodeFailed, RequestError

__all__ = ["TooManyErrors", "write_rows"]


class TooManyErrors(MeshError):
    """More rows failed than the batch's policy bears. `row` and `error` tell of the first that was one too many."""

    def __init__(self, row: int, error: RequestError, most: int) -> None:
        more = (
            f"more than {most} row{'s' * (most != 1)} failed" if most else "the batch stops at the first row that fails"
        )
        where = f"node {error.node}: " if error.node else ""
        super().__init__(f"{more}; row {row}: {where}{error.text}")
        self.row = row
        self.error = error


def write_rows(
    plan: BatchPlan, part: PartWriter, read: RowsRead, answers: Answers, most_errors: int | None
) -> tuple[int, int]:
    """Write what became of the rows of one request.

    Args:
        plan: Of the batch.
        part: Where.
        read: The rows.
        answers: What became of them.
        most_errors: Rows of the part that may fail; all where None.

    Returns:
        How many were answered, and how many failed.

    Raises:
        TooManyErrors: More failed than may.
        OSError: The system cannot write.
    """
    failed = dict(answers.failed)
    tables: list[Batch] = []
    answered = 0
    kept = read.table.select(list(plan.keep))
    for places, tensors in answers.parts:
        try:
            columns = encoded(plan.outputs, tensors)
        except NodeFailed as error:
            failed.update(dict.fromkeys(places.tolist(), error))
            continue
        whole = len(places) == read.table.num_rows and tensors.sources is None
        rows = kept if whole else kept.take(pa.array(places))
        arrays = [pa.array(places + read.start), *rows.columns, *columns]
        tables.append(pa.RecordBatch.from_arrays(arrays, schema=part.schema))
        answered += len(places) if tensors.sources is None else len(np.unique(places))
    part.add(tables if len(tables) < 2 else _in_order(tables), answered)
    places = sorted(failed)
    part.add_errors(
        [place + read.start for place in places],
        [failed[place] for place in places],
        kept.take(pa.array(places, pa.int64())),
    )
    if most_errors is not None and part.rows_failed > most_errors:
        place = places[most_errors - part.rows_failed]
        raise TooManyErrors(place + read.start, failed[place], most_errors)
    return answered, len(failed)


def _in_order(tables: list[Batch]) -> list[Batch]:
    """Rows of several answers by their numbers; those of one number stay in their order."""
    table = pa.Table.from_batches(tables)
    order = np.argsort(table.column("row").to_numpy(), kind="stable")
    return table.take(pa.array(order)).combine_chunks().to_batches()
