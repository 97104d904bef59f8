"""Models that take a known time: by working, as on the processor, or by waiting, as for another device."""

from __future__ import annotations

import asyncio
import hashlib
import time

from mesh import Context, Predict, Signature, Tensors

__all__ = ["Busy", "Waiting"]

_BLOCK = bytes(1 << 16)
"""About 100 microseconds' worth."""


class Busy(Predict):
    """Keeps a core busy for some milliseconds, in a thread."""

    signature = Signature.parse("x: FP32[rows, n] -> x: FP32[rows, n]")

    def __init__(self, *, ms: float) -> None:
        self._seconds = ms / 1000

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """What it was given, after the time."""
        await asyncio.to_thread(self._work)
        return inputs

    def _work(self) -> None:
        # The processor's time, not the wall's: two that share a core take twice as long, as models do. And like them,
        # hashing lets go of the interpreter.
        until = time.thread_time() + self._seconds
        while time.thread_time() < until:
            hashlib.blake2b(_BLOCK)


class Waiting(Busy):
    """Takes as long, and no core."""

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """What it was given, after the time."""
        await asyncio.sleep(self._seconds)
        return inputs
