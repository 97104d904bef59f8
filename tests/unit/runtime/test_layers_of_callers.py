"""Layers that stand with the caller: a second attempt goes to another replica."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

import numpy as np

from mesh import Context, Predict, Signature, Tensors
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.topology import compile_text

TEXT = """
mesh: v1
name: replicated
inputs: {x: {datatype: FP32, shape: [-1]}}
nodes:
  model:
    uses: tests.unit.runtime.test_layers_of_callers:HangsInTheFirst
    inputs: {x: x}
    layers:
      - hedge: {after: 1ms, max_share: 1.0}
      - batch: {max_rows: 4}
outputs: {x: model.x}
placements:
  twice:
    front: {nodes: []}
    back: {nodes: [model], replicas: 2}
"""
REQUEST = Tensors({"x": np.ones(1, np.float32)})


class HangsInTheFirst(Predict):
    signature = Signature.parse("x: FP32[rows] -> x: FP32[rows]")
    loaded = 0

    async def __aenter__(self) -> Self:
        self._hangs = HangsInTheFirst.loaded == 0
        HangsInTheFirst.loaded += 1
        return self

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        if self._hangs:
            await asyncio.Event().wait()
        return inputs


async def test_a_hedged_call_is_answered_by_the_other_replica() -> None:
    HangsInTheFirst.loaded = 0
    plan = compile_text(TEXT, LAYERS, folder=Path(__file__).parent).plan("twice")
    async with LocalMesh(plan) as mesh:
        for _ in range(8):
            assert await mesh(REQUEST, Context().within(20)) == REQUEST
    assert HangsInTheFirst.loaded == 2
