"""`mesh cache warm FILE`: a cache that outlives the command is filled, and a mesh that starts later finds it so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from mesh.cli.main import main
from mesh.context import Context
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from tests.harness.meshes import ROOT, compiled
from tests.harness.valkey import valkey

FILE = """
mesh: v1
name: warmed
models: {models}
inputs:
  x: {{datatype: FP32, shape: [-1, 64]}}
caches:
  kept: {{backend: "{url}", timeout: 30s}}
nodes:
  digit:
    uses: nodes.onnx:OnnxPredict
    with: {{model: digits_logreg.onnx}}
    inputs: {{X: x}}
    layers: [cache: {{in: kept}}]
outputs: {{label: digit.label}}
"""


def test_a_mesh_finds_what_was_filled_before_it_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(ROOT / "models" / "digits_sample.npz") as sample:
        rows = sample["image"][:150] / np.float32(16)
    np.save(tmp_path / "rows.npy", rows)
    file = tmp_path / "warmed.yaml"
    with valkey() as server:
        file.write_text(FILE.format(models=ROOT / "models", url=server.url))
        assert main(["cache", "warm", str(file), "--node", "digit", "-i", f"X=@{tmp_path}/rows.npy"]) == 0
        assert capsys.readouterr().out == "150 rows of digit there\n"
        assert main(["cache", "warm", str(file), "--node", "digit", "-i", "X=[[1.0]]"]) == 1

        async def ask() -> tuple[int, int]:
            async with LocalMesh(compiled(file).plan("fused")) as mesh:
                context = Context(timings=[])
                answer = await mesh(Tensors({"x": rows}), context)
                (timing,) = context.timings or []
                return answer.rows, round(timing.compute_s * 1e9)

        assert asyncio.run(ask()) == (150, 0)
