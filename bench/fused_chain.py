"""(a) What a mesh adds in one process: a chain of three nodes against the bare loop over the same models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.measure import paired_async
from mesh.context import Context
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_file

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
NODES = 3
CALLS = 400


def session(name: str) -> ort.InferenceSession:
    """A model as OnnxPredict opens it: one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(ROOT / "models" / name, options, providers=["CPUExecutionProvider"])


async def run() -> dict[str, Any]:
    """Overhead a request and a node, with one row and with 64."""
    embed, head = session("digits_embed.onnx"), session("digits_head.onnx")
    plan = compile_file(ROOT / "topologies" / "serial.yaml", LAYERS).plan("fused")
    pictures = np.load(ROOT / "models" / "digits_sample.npz")["image"]
    sixteenth = np.float32(1 / 16)
    found: dict[str, Any] = {"nodes": NODES, "target_us_per_node": 100, "aim_us_per_node": 30, "cases": {}}
    async with LocalMesh(plan) as mesh:
        for rows in (1, 64):
            batch = pictures[:rows]
            request = Tensors({"image": batch})

            async def ours(request: Tensors = request) -> int:
                for _ in range(CALLS):
                    await mesh.root(request, Context().within(30.0))
                return CALLS

            async def bare(batch: Any = batch) -> int:
                for _ in range(CALLS):
                    vectors = embed.run(["variable"], {"X": batch * sixteenth})[0]
                    head.run(["label", "probabilities"], {"X": vectors})
                return CALLS

            measured = await paired_async(ours, bare, rounds=15)
            overhead_us = measured.ours_us - measured.other_us
            found["cases"][f"{rows} rows"] = {
                **measured.to_json(),
                "overhead_us": round(overhead_us, 1),
                "overhead_us_per_node": round(overhead_us / NODES, 1),
            }
    return found
