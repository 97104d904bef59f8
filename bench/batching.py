"""(b) Dynamic batching: single-row requests through a batch layer against onnxruntime at its best batch size."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from bench.fused_chain import session
from bench.measure import paired, paired_async
from mesh.context import Context
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.runtime.loop import collect_seldom, yield_to_models
from mesh.tensors import Tensors
from mesh.topology import compile_text

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGY = """
mesh: v1
name: batching
models: models
inputs: {{image: {{datatype: FP32, shape: [-1, 64]}}}}
nodes:
  knn:
    uses: nodes.onnx:OnnxPredict
    with: {{model: digits_knn.onnx}}
    inputs: {{X: image}}
    layers: [{{batch: {{max_rows: {rows}}}}}]
outputs: {{label: knn.label}}
"""
SIZES = (1, 16, 64, 128, 256, 512)
REQUESTS = 16_384
"""Enough that filling and emptying the line at both ends does not count."""


async def run() -> dict[str, Any]:
    """Rows a second, and the share of the bare model's best."""
    model = session("digits_knn.onnx")
    pictures = np.load(ROOT / "models" / "digits_sample.npz")["image"] / np.float32(16)
    pictures = np.concatenate([pictures] * (REQUESTS // len(pictures) + 1))[:REQUESTS]
    yield_to_models()  # as a worker does
    collect_seldom()
    per_row: dict[int, float] = {}
    for size in SIZES:
        batch = pictures[:size]

        def call(batch: Any = batch) -> object:
            return model.run(["label", "probabilities"], {"X": batch})

        per_row[size] = paired(call, call, calls=4, rounds=5).ours_us / size
    best = min(per_row, key=lambda size: per_row[size])
    plan = compile_text(TOPOLOGY.format(rows=best), LAYERS, folder=ROOT).plan("fused")
    rows = [Tensors({"image": pictures[index : index + 1]}) for index in range(REQUESTS)]
    async with LocalMesh(plan) as mesh:

        async def caller(own: list[Tensors]) -> None:
            for request in own:
                await mesh.root(request, Context())

        async def ours() -> int:
            # Twice as many callers as a batch holds: the next batch gathers while one runs.
            callers = best * 2
            await asyncio.gather(*(caller(rows[start::callers]) for start in range(callers)))
            return REQUESTS

        async def bare() -> int:
            for start in range(0, REQUESTS, best):
                model.run(["label", "probabilities"], {"X": pictures[start : start + best]})
            return REQUESTS

        measured = await paired_async(ours, bare, rounds=7)
    return {
        "model": "digits_knn.onnx",
        "bare_us_per_row_by_batch": {str(size): round(value, 2) for size, value in per_row.items()},
        "best_batch": best,
        "callers": best * 2,
        **measured.to_json(),
        "share_of_bare": round(1 / measured.ratio, 3),
        "target_share": 0.9,
    }
