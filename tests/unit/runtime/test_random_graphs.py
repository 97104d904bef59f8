"""In every placement, over links that lose nothing, a graph gives what a plain interpreter gives row by row."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from mesh.context import Context
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_text
from tests.harness.meshes import LINKS
from tests.unit.runtime.random_graphs import Plain, RandomGraph, random_graphs

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def plainly(graph: RandomGraph) -> Tensors:
    """What the interpreter gives, each row for itself."""
    rows = [Plain(graph, row) for row in graph.request]
    outputs = {name: [row.value(name) for row in rows] for name in graph.outputs}
    assert all(value is not None for values in outputs.values() for value in values)
    return Tensors({f"o-{name}": np.array(values, np.float32) for name, values in outputs.items()})


async def placed(graph: RandomGraph, placement: str, link: str, folder: str) -> list[Tensors]:
    """What a mesh gives: asked at once, row by row, and as a stream."""
    kind = LINKS[link]
    plan = compile_text(str(graph), LAYERS).plan(placement)
    async with LocalMesh(plan, transport=kind.transport(), address=kind.address.format(folder, "{0}", "{1}")) as mesh:
        request = Tensors({"x": np.array(graph.request, np.float32)})
        told: dict[str, object] = {}
        async for _, result in mesh.root.stream(request, asking(graph)):
            assert isinstance(result, Tensors)
            told |= result
        streamed = Tensors({f"o-{name}": told[f"o-{name}"] for name in graph.outputs})
        return [await mesh(request, asking(graph)), streamed]


def asking(graph: RandomGraph) -> Context:
    return Context(parameters={"go": graph.go})


def check(graph: RandomGraph, link: str) -> None:
    expected = plainly(graph)
    with TemporaryDirectory(prefix="mt-", dir="/tmp") as folder:
        for placement in ("fused", "processes", "some"):
            (Path(folder) / placement).mkdir()
            for found in asyncio.run(placed(graph, placement, link, f"{folder}/{placement}")):
                assert found == expected, placement


@given(random_graphs())
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
def test_any_graph_gives_what_it_gives_row_by_row(graph: RandomGraph) -> None:
    check(graph, "inproc-strict")


@pytest.mark.parametrize("link", ["wire", "grpcio"])
@given(random_graphs())
@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
def test_any_graph_gives_the_same_over_sockets(link: str, graph: RandomGraph) -> None:
    check(graph, link)
