"""What the jobs of a soak compute: something whose answer can be checked, in a time that the request says."""

from __future__ import annotations

import asyncio
import os

import numpy as np

from mesh import Context, Predict, Signature, Tensors

__all__ = ["Collatz", "steps"]


class Collatz(Predict):
    """How many steps of the Collatz function each number is from 1; and a mark that no two executions share.

    The mark makes every execution's result another one, so that two that are shown under one id do not look the same.
    """

    signature = Signature.parse("n: INT64[rows], ms: INT64[rows] -> steps: INT64[rows], mark: INT64[rows]")

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """Computed after the longest `ms` of the request: what is killed meanwhile is begun again."""
        wait_ms = int(inputs["ms"].max(initial=0))
        if wait_ms > 0:
            await asyncio.sleep(wait_ms / 1000)
        numbers: list[int] = inputs["n"].tolist()
        mark = int.from_bytes(os.urandom(7), "little")
        return Tensors({"steps": np.array([steps(n) for n in numbers], np.int64), "mark": np.full(len(numbers), mark)})


def steps(n: int) -> int:
    """Of one number from 1; -1 below that."""
    if n < 1:
        return -1
    taken = 0
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        taken += 1
    return taken
