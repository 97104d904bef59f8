"""What caches reach: the part of `scripts/measure_patterns.py` that is about them."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np

from mesh.context import Context
from mesh.errors import InvalidInput
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.transports import InprocTransport
from scripts.cache_passes import cached_mesh, one_pass, told, zipf
from scripts.sentences import sentences
from tests.harness.valkey import valkey

__all__ = ["inference_cache", "shared_cache", "tiered_cache"]

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 1 << 20
DRAWN = 4000
"""Digits that are asked for, one at a time."""
SENTENCES_DRAWN = 2000
_TIERS = '{tiers: ["memory://", "mesh://store"], max_bytes: 1MiB, timeout: 250ms}'


async def _misses(mesh: LocalMesh, transport: InprocTransport) -> int:
    """Rows that were computed so far, in the whole mesh."""
    return sum(one.misses for one in (await told(mesh, transport)).cached)


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
    async with cached_mesh("inference_cache", "fused", transport) as mesh:
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
    drawn = zipf(len(images), DRAWN)
    found: dict[str, Any] = {"rows": DRAWN, "different": len(set(drawn))}
    alone = [(_TIERS, '{backend: "memory://"}'), ("  store:\n    uses: nodes.cache:MemoryCache\n", "")]
    alone += [("    with: {max_bytes: 64MiB}\n", ""), ("    cache: {nodes: [store]}\n", "")]
    alone += [("scale, store]", "scale]")]
    for name, changes in (("each its own", alone), ("one for both", ())):
        transport = InprocTransport()
        async with cached_mesh("shared_cache", "shared", transport, replace=changes) as mesh:
            for row in drawn:
                await mesh(Tensors({"image": images[row : row + 1]}))
            computed = await _misses(mesh, transport)
        found[name] = {"computed": computed, "spared": round(1 - computed / DRAWN, 4)}
    return found


async def tiered_cache() -> dict[str, Any]:
    """Sentences drawn by a Zipf law, one at a time, asked of two replicas with a Valkey behind the memory of each."""
    text, _ = sentences()
    drawn = zipf(len(text), SENTENCES_DRAWN)
    requests = [Tensors({"text": text[row : row + 1]}) for row in drawn]
    found: dict[str, Any] = {"different": len({text[row, 0].lower() for row in drawn})}
    with valkey() as server:
        moved = [("redis://127.0.0.1:6379", server.url)]
        meshes: dict[str, dict[str, dict[str, str]]] = {
            "first": {"`cache: skip`": {"cache": "skip"}, "all empty": {}, "all full": {}},
            "restarted": {"after a restart: memories empty, Valkey full": {}},
            "alone": {"Valkey killed, memories empty": {}},
        }
        for which, passes in meshes.items():
            if which == "alone":
                server.kill()
            transport = InprocTransport()
            async with cached_mesh("tiered_cache", "tiered", transport, replace=moved) as mesh:
                for name, parameters in passes.items():
                    found[name] = await one_pass(mesh, transport, "embed", requests, parameters)
    return found
