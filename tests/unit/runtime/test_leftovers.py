"""What a request held is free as soon as it ends, however it ends: nothing waits for the collector of cycles.

Workers let that one run seldom (see `mesh.runtime.loop`), and a request may hold many megabytes.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh import Context, Predict, Signature, Tensors
from mesh.errors import InvalidInput, RequestError
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.topology import compile_text
from mesh.transports import GrpcTransport

TOPOLOGY = """
mesh: v1
name: g
inputs: {{x: {{datatype: FP32, shape: [-1, 2]}}}}
caches: {{hot: {{backend: "memory://"}}}}
nodes:
  n: {{uses: "tests.unit.runtime.test_leftovers:Fickle", inputs: {{x: x}}, layers: [{layers}]}}
  kept: {{uses: "tests.unit.runtime.test_leftovers:Fickle", inputs: {{x: {feeds}}}, layers: [cache: {{in: hot}}]}}
outputs: {{y: n.y, kept: kept.y}}
"""
ANSWERED, REFUSED, BROKEN, LATE = range(4)
GIVEN: list[weakref.ref[Any]] = []
"""The tensors that the node was given."""


class Fickle(Predict):
    """Ends as its first number says."""

    signature = Signature.parse("x: FP32[rows, 2] -> y: FP32[rows, 2]")

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """Waits, and then answers, refuses, breaks, or waits on."""
        GIVEN.append(weakref.ref(inputs["x"]))
        await asyncio.sleep(0)
        match int(inputs["x"][-1, 0]):
            case 1:
                raise InvalidInput("no")
            case 2:
                raise ValueError("broken")
            case 3:
                await asyncio.Event().wait()
            case _:
                pass
        return Tensors({"y": np.zeros((inputs.rows, 2), np.float32)})


@pytest.mark.parametrize("end", [ANSWERED, REFUSED, BROKEN, LATE])
@pytest.mark.parametrize("layers", ["", "batch: {max_rows: 4}", "queue: {max_rows: 8}", "cache: {in: hot}"])
@pytest.mark.parametrize("feeds", ["x", "n.y"])
async def test_nothing_of_a_request_waits_for_the_collector(
    layers: str, end: int, feeds: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = compile_text(TOPOLOGY.format(layers=layers, feeds=feeds), LAYERS, folder=tmp_path).plan("fused")

    async def ask(mesh: LocalMesh, number: int) -> None:
        context = Context().within(0.05 if end == LATE else 30.0)
        with suppress(RequestError):
            await mesh(Tensors({"x": np.array([[end, number]], np.float32)}), context)

    caplog.set_level("CRITICAL", "mesh.node")  # or its records would keep what failed
    GIVEN.clear()
    gc.collect()
    gc.disable()
    try:
        async with LocalMesh(plan, transport=GrpcTransport("wire"), address=f"unix:{tmp_path}/{{}}-{{}}") as mesh:
            await asyncio.gather(*(ask(mesh, number) for number in range(6)))
        assert GIVEN
        assert [given for given in GIVEN if given() is not None] == []
    finally:
        gc.enable()
