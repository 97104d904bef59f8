"""How a topology with a cache is asked and what is counted meanwhile, for the measures of caches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mesh.context import Context
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_text
from mesh.transports import InprocTransport, Limits
from mesh.transports.statistics import Statistics

__all__ = ["SEED", "TOPOLOGIES", "ZIPF", "cached_mesh", "one_pass", "told", "zipf"]

TOPOLOGIES = Path(__file__).resolve().parent.parent / "topologies"
ZIPF = 1.1
SEED = 7


def zipf(kinds: int, draws: int) -> list[int]:
    """Which of some kinds is asked for, again and again: the n-th with a probability as n to the power of -1.1."""
    weights = 1.0 / np.arange(1, kinds + 1) ** ZIPF
    return np.random.default_rng(SEED).choice(kinds, draws, p=weights / weights.sum()).tolist()


def cached_mesh(
    name: str, placement: str, transport: InprocTransport, *, replace: Sequence[tuple[str, str]] = ()
) -> LocalMesh:
    """A topology in this process, with some of its text changed."""
    text = (TOPOLOGIES / f"{name}.yaml").read_text()
    for old, new in replace:
        assert old in text, f"{name}.yaml does not say {old!r}"
        text = text.replace(old, new)
    return LocalMesh(compile_text(text, LAYERS, folder=TOPOLOGIES).plan(placement), transport=transport)


async def told(mesh: LocalMesh, transport: InprocTransport) -> Statistics:
    """What the whole mesh has counted so far."""
    link = await transport.dial(mesh.gateway_address, Limits())
    try:
        return await link.stats(5.0)
    finally:
        await link.close()


async def one_pass(
    mesh: LocalMesh,
    transport: InprocTransport,
    node: str,
    requests: Sequence[Tensors],
    parameters: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Ask requests of one row each, one after another.

    Returns:
        `requests`, `computed`: rows that `node` itself was run on, `spared`: the share for which it was not, `busy_s`:
        how long it ran, and `mean_ms` and `median_ms` of a whole request.
    """
    before, took = _ran(await told(mesh, transport), node), list[float]()
    for request in requests:
        context = Context(parameters=dict(parameters or {})).within(60.0)
        started = time.perf_counter()
        await mesh(request, context)
        took.append(time.perf_counter() - started)
    after = _ran(await told(mesh, transport), node)
    computed = after[0] - before[0]
    return {
        "requests": len(took),
        "computed": computed,
        "spared": round(1 - computed / len(took), 4),
        "busy_s": round(after[1] - before[1], 2),
        "mean_ms": round(float(np.mean(took)) * 1e3, 2),
        "median_ms": round(float(np.median(took)) * 1e3, 2),
    }


def _ran(statistics: Statistics, node: str) -> tuple[int, float]:
    # Requests of one row, one after another, make batches of one row.
    every = [one for one in statistics.nodes if one.node == node]
    return sum(one.batches for one in every), sum(one.compute_s for one in every)
