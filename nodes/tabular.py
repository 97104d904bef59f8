"""Tables of numbers."""

from __future__ import annotations

import asyncio
import math

import numpy as np

from mesh import Array, Context, Preprocess, SetupError, Signature, Tensors

__all__ = ["Scale"]

_INLINE_ELEMENTS = 1 << 17
"""Fewer numbers than that are done sooner than a thread begins (about 50 microseconds)."""
_LARGEST = float(np.finfo(np.float32).max)


class Scale(Preprocess):
    """Gives `(x - subtract) / divide_by`, in single precision.

    Args:
        divide_by: Not zero.
        subtract: Taken away first.

    Raises:
        SetupError: An argument is not a finite number in single precision, or `divide_by` is zero there.
    """

    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(self, *, divide_by: float, subtract: float = 0.0) -> None:
        for name, value in (("divide_by", divide_by), ("subtract", subtract)):
            if not math.isfinite(value) or abs(value) > _LARGEST:
                raise SetupError(f"{name} is {value}: it has to be a finite number in single precision")
        self._divide_by, self._subtract = np.float32(divide_by), np.float32(subtract)
        if self._divide_by == 0:
            raise SetupError(f"divide_by is {divide_by}: nothing can be divided by zero")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        x = inputs["x"]
        scaled = self._scale(x) if x.size < _INLINE_ELEMENTS else await asyncio.to_thread(self._scale, x)
        scaled.flags.writeable = False
        return Tensors.trusted({"x": scaled})

    def _scale(self, x: Array) -> Array:
        # What is too large becomes infinity; a caller must not be able to fill the log with warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            return (x - self._subtract if self._subtract else x) / self._divide_by
