"""A node that does what its request says, and writes down what happens to it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from mesh import Context, Preprocess, Signature, Tensors

GATE_POLL_S = 0.005


class Follow(Preprocess):
    """Follows the script in its request: how long to take, and where to write what happened.

    A script is JSON: `log`, a file; and `takes`, by node: seconds, or "gate" to wait until the file `<log>.open` is
    there.

    Args:
        name: What it is called in the script and in the log.
    """

    signature = Signature.parse("script: BYTES[rows] -> script: BYTES[rows]")

    def __init__(self, *, name: str) -> None:
        self._name = name

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        script = json.loads(inputs["script"][0])
        log = Path(script["log"])
        self._write(log, "began")
        try:
            takes = script["takes"].get(self._name, 0.0)
            if takes == "gate":
                while not log.with_suffix(".open").exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(GATE_POLL_S)
            else:
                await asyncio.sleep(takes)
        except asyncio.CancelledError:
            self._write(log, "cancelled")
            raise
        self._write(log, "ended")
        return inputs

    def _write(self, log: Path, what: str) -> None:
        with log.open("a") as file:  # one small write at the end of a file is never torn
            file.write(f"{self._name} {what}\n")
