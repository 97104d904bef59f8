"""What the batches of a soak compute: something else for each row, slowly, and it writes down what it was asked."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import numpy as np

from bench.soak_batches.rows import REFUSED, is_refused, is_unreadable, mixed, number_of
from mesh import Context, InvalidInput, Predict, Signature, Tensors

__all__ = ["Mix", "executions"]

ANSWER_S = 0.06
"""How long an answer takes."""


class Mix(Predict):
    """Mixes numbers, refuses some of them, and appends a line for each time that it is asked to a file.

    Such a line is there whatever becomes of the process: what is written is the system's.

    Args:
        log: The file.
    """

    signature = Signature.parse("n: INT64[rows] -> mixed: INT64[rows]")

    def __init__(self, *, log: str) -> None:
        self._log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """The first row that is refused is named; the others can be asked again."""
        n = inputs["n"]
        os.write(self._log, f"{int(n[0])} {len(n)}\n".encode())
        await asyncio.sleep(ANSWER_S)
        refused = np.flatnonzero(is_refused(n))
        if len(refused):
            raise InvalidInput(REFUSED, tensor="n", row=int(refused[0]))
        return Tensors({"mixed": mixed(n)})


def executions(log: Path, rows: int, shard_rows: int, request_rows: int) -> list[int]:
    """How often each shard was begun, by what was asked: its first request, whole, is only asked when it begins.

    Args:
        log: What the nodes wrote.
        rows: Of the input.
        shard_rows: Of a shard; more than of a request.
        request_rows: Of a request.
    """
    asked = Counter(log.read_text().splitlines())
    counts: list[int] = []
    for start in range(0, rows, shard_rows):
        row = np.arange(start, min(start + request_rows, rows))
        readable = row[~is_unreadable(row)]
        counts.append(asked[f"{int(number_of(readable)[0])} {len(readable)}"])
    return counts
