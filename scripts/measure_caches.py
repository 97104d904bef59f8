"""What caches reach: the part of `scripts/measure_patterns.py` that is about them."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mesh.context import Context
from mesh.errors import InvalidInput
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_text
from mesh.transports import InprocTransport, Limits

__all__ = ["inference_cache", "shared_cache"]

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGIES = ROOT / "topologies"
MOST_BYTES = 1 << 20
DRAWN = 4000
"""Digits that are asked for, one at a time."""
ZIPF = 1.1
SEED = 7
_TIERS = '{tiers: ["memory://", "mesh://store"], max_bytes: 1MiB, timeout: 250ms}'


def _mesh(
    name: str, placement: str, transport: InprocTransport, *, replace: Sequence[tuple[str, str]] = ()
) -> LocalMesh:
    text = (TOPOLOGIES / f"{name}.yaml").read_text()
    for old, new in replace:
        assert old in text
        text = text.replace(old, new)
    return LocalMesh(compile_text(text, LAYERS, folder=TOPOLOGIES).plan(placement), transport=transport)


async def _misses(mesh: LocalMesh, transport: InprocTransport) -> int:
    """Rows that were computed so far, in the whole mesh."""
    link = await transport.dial(mesh.gateway_address, Limits())
    told = await link.stats(5.0)
    await link.close()
    return sum(one.misses for one in told.cached)


def files() -> list[bytes]:
    """Every file of Python's standard library, compiled ones included; empty and very large ones left out."""
    found = sorted(path for path in Path(sysconfig.get_path("stdlib")).rglob("*") if path.is_file())
    own = [path for path in found if not {"site-packages", "dist-packages"}.intersection(path.parts)]
    return [path.read_bytes() for path in own if 8 <= path.stat().st_size <= MOST_BYTES]


async def inference_cache() -> dict[str, Any]:
    """File types, one file a request: without the cache, with it empty, and with it full."""
    transport = InprocTransport()
    asked = files()
    passes: dict[str, dict[str, Any]] = {}
    async with _mesh("inference_cache", "fused", transport) as mesh:
        for name, parameters in (("without", {"cache": "skip"}), ("cold", {}), ("warm", {})):
            before, took = await _misses(mesh, transport), list[float]()
            for data in asked:
                started = time.perf_counter()
                try:
                    await mesh(Tensors({"file": np.array([data], object)}), Context(parameters=parameters))
                except InvalidInput:
                    continue  # too short to tell
                took.append(time.perf_counter() - started)
            computed = len(took) if name == "without" else await _misses(mesh, transport) - before
            passes[name] = {
                "files": len(took),
                "computed": computed,
                "spared": round(1 - computed / len(took), 4),
                "mean_ms": round(float(np.mean(took)) * 1e3, 3),
                "median_ms": round(float(np.median(took)) * 1e3, 3),
            }
    return passes


async def shared_cache() -> dict[str, Any]:
    """Digits drawn by a Zipf law, asked of two replicas: each with a memory of its own, and with one cache for both."""
    with np.load(ROOT / "models" / "digits_sample.npz") as sample:
        images = sample["image"]
    weights = 1.0 / np.arange(1, len(images) + 1) ** ZIPF
    drawn = np.random.default_rng(SEED).choice(len(images), DRAWN, p=weights / weights.sum())
    found: dict[str, Any] = {"rows": DRAWN, "different": len(set(drawn.tolist()))}
    alone = [(_TIERS, '{backend: "memory://"}'), ("  store:\n    uses: nodes.cache:MemoryCache\n", "")]
    alone += [("    with: {max_bytes: 64MiB}\n", ""), ("    cache: {nodes: [store]}\n", "")]
    alone += [("scale, store]", "scale]")]
    for name, changes in (("each its own", alone), ("one for both", ())):
        transport = InprocTransport()
        async with _mesh("shared_cache", "shared", transport, replace=changes) as mesh:
            for row in drawn.tolist():
                await mesh(Tensors({"image": images[row : row + 1]}))
            computed = await _misses(mesh, transport)
        found[name] = {"computed": computed, "spared": round(1 - computed / DRAWN, 4)}
    return found
