"""Caches in a running mesh: who is asked, what is shared, and that nothing fails with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from mesh.caches import KeySpec, digest_rows
from mesh.context import Context, Parameter
from mesh.errors import InvalidInput, NotFound
from mesh.keeping import CacheAnswer, CacheCall
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.runtime.caching import key_spec, namespace_of
from mesh.tensors import Tensors
from mesh.topology import compile_text
from mesh.transports import InprocTransport, Limits, Link
from mesh.transports.contract import CACHE, CACHES
from mesh.transports.statistics import Statistics

NODES = "tests.unit.runtime.cached_nodes"
FILE = f"""\
mesh: v1
name: cached
inputs:
  x: {{datatype: FP32, shape: [-1, 2]}}
caches:
  hot: {{backend: "memory://", max_bytes: 1MiB}}
  shared: {{backend: "mesh://store", timeout: 5s}}
nodes:
  first:
    uses: {NODES}:Counting
    with: {{name: first}}
    inputs: {{x: x}}
    layers: [cache: {{in: hot, parameters: [add]}}]
  second:
    uses: {NODES}:Counting
    with: {{name: second}}
    inputs: {{x: first.x}}
    layers: [cache: {{in: shared, negative: 60s}}]
  store:
    uses: nodes.cache:MemoryCache
    with: {{max_bytes: 1MiB}}
outputs:
  x: second.x
placements:
  apart:
    gateway: {{nodes: [first]}}
    pred: {{nodes: [second], replicas: 2}}
    cache: {{nodes: [store]}}
  beside:
    gateway: {{nodes: [first, store]}}
    pred: {{nodes: [second], replicas: 2}}
"""
PLACEMENTS = ("fused", "processes", "apart", "beside")


class Asked:
    """A running mesh, and how often its nodes were asked for rows."""

    def __init__(self, mesh: LocalMesh, link: Link, calls: dict[str, list[float]]) -> None:
        self.mesh = mesh
        self._link = link
        self.calls = calls

    async def __call__(self, *numbers: float, **parameters: Parameter) -> list[float]:
        request = Tensors({"x": np.array([[number, 0] for number in numbers], np.float32)})
        answer = await self.mesh(request, Context(parameters=parameters))
        return answer["x"][:, 0].tolist()

    async def control(self, **call: Any) -> CacheAnswer:
        """What the gateway answers to a call of its caches."""
        handler: Any = self._link.handler(CACHE, CACHES)
        return await handler(CacheCall(**call), Context())

    async def counted(self) -> Statistics:
        return await self._link.stats(5.0)


@asynccontextmanager
async def running(placement: str, *, text: str = FILE, strict: bool = True) -> AsyncGenerator[Asked]:
    from tests.unit.runtime.cached_nodes import CALLS

    CALLS.clear()
    plan = compile_text(text, LAYERS, folder=Path(__file__).parent).plan(placement)
    transport = InprocTransport(strict=strict)
    async with LocalMesh(plan, transport=transport) as mesh:
        link = await transport.dial(mesh.gateway_address, Limits())
        yield Asked(mesh, link, CALLS)
        await link.close()


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_every_row_is_computed_once_in_the_whole_mesh(placement: str) -> None:
    async with running(placement) as ask:
        for _ in range(8):
            assert await ask(1.0, 2.0, 1.0) == [3.0, 4.0, 3.0]
        assert await ask(2.0, 5.0) == [4.0, 7.0]
        assert ask.calls == {"first": [1.0, 2.0, 5.0], "second": [2.0, 3.0, 6.0]}


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_what_is_counted_adds_up_over_the_mesh(placement: str) -> None:
    async with running(placement) as ask:
        for _ in range(3):
            await ask(1.0, 2.0)
        told = await ask.counted()
        cached = {one.node: one for one in told.cached}
        assert [one.node for one in told.cached] == ["first", "second"]
        for one in cached.values():
            assert (one.hits, one.misses) == (4, 2)
            assert one.hit_ratio == pytest.approx(4 / 6)
        assert cached["first"].saved_s > 0
        stores = [one for one in told.caches if one.cache == "store"]
        assert [(one.backend, one.entries, one.max_bytes) for one in stores] == [("memory://", 2, 1 << 20)]
        nodes = {one.node: one for one in told.nodes}
        assert nodes["second"].requests == 3
        assert nodes["second"].batches == 1


async def test_tiers_are_told_one_by_one() -> None:
    tiers = FILE.replace('{backend: "mesh://store",', '{tiers: ["memory://", "mesh://store"], max_bytes: 1MiB,')
    async with running("fused", text=tiers) as ask:
        for _ in range(3):
            await ask(1.0, 2.0)
        told = [one for one in (await ask.counted()).caches if one.cache == "shared"]
    assert [(one.tier, one.backend, one.hits, one.misses, one.kept, one.entries) for one in told] == [
        (0, "[memory://, mesh://store]", 4, 2, 2, None),
        (1, "memory://", 4, 2, 2, 2),
        (2, "mesh://store", 0, 2, 2, 2),
    ]
    assert [one.max_bytes for one in told] == [None, 1 << 20, 1 << 20]


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_what_a_node_put_can_be_forgotten_everywhere(placement: str) -> None:
    async with running(placement) as ask:
        await ask(1.0, 2.0)
        use = (await ask.control(verb="stats", node="second")).use
        assert (use.entries, use.backend) == (2, "mesh://store")
        assert (await ask.control(verb="stats", node="second", version="older")).use.entries == 0
        assert (await ask.control(verb="clear", node="second", version="older")).count == 0
        assert (await ask.control(verb="clear", node="second")).count == 2
        await ask(1.0, 2.0)
        assert ask.calls == {"first": [1.0, 2.0], "second": [2.0, 3.0, 2.0, 3.0]}
        assert (await ask.control(verb="clear", cache="hot")).count == 2
        assert (await ask.control(verb="clear")).count == 2


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_node_can_be_run_ahead(placement: str) -> None:
    async with running(placement) as ask:
        inputs = Tensors({"x": np.array([[2, 1], [3, 1]], np.float32)})
        assert (await ask.control(verb="prefetch", node="second", inputs=inputs)).count == 2
        assert ask.calls == {"second": [2.0, 3.0]}
        assert await ask(1.0, 2.0) == [3.0, 4.0]
        assert ask.calls["second"] == [2.0, 3.0]
        with pytest.raises(InvalidInput):
            await ask.control(verb="prefetch", node="second", inputs=Tensors({"y": [1]}))


async def test_a_node_whose_replicas_have_each_a_cache_is_run_ahead_in_all_of_them() -> None:
    text = FILE.replace('{backend: "mesh://store", timeout: 5s}', '{backend: "memory://"}')
    text = text[: text.index("  store:")] + text[text.index("outputs:") :]
    text = text[: text.index("    cache: {nodes: [store]}")]
    async with running("apart", text=text) as ask:
        inputs = Tensors({"x": np.array([[2, 1]], np.float32)})
        await ask.control(verb="prefetch", node="second", inputs=inputs)
        assert ask.calls == {"second": [2.0, 2.0]}
        for _ in range(8):
            await ask(1.0)
        assert ask.calls["second"] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"verb": "clear", "cache": "hit"}, "no cache is called 'hit' here; there is: hot, shared"),
        ({"verb": "clear", "node": "store"}, "no node with a cache is called 'store' here; there is: first, second"),
        ({"verb": "stats", "node": "first", "cache": "shared"}, "node 'first' has its answers in cache 'hot'"),
        ({"verb": "prefetch", "node": "third"}, "no node with a cache is called 'third'"),
    ],
)
async def test_what_there_is_not_is_said(call: dict[str, Any], error: str) -> None:
    async with running("processes") as ask:
        with pytest.raises(NotFound, match=error):
            await ask.control(**call)


async def test_what_is_for_cache_nodes_alone_is_refused_by_others() -> None:
    async with running("processes") as ask:
        with pytest.raises(InvalidInput, match="get is for cache nodes"):
            await ask.control(verb="get", keys=(b"k" * 16,))
        with pytest.raises(InvalidInput, match="delete needs the node"):
            await ask.control(verb="delete", keys=(b"k" * 16,))


async def test_parameters_that_count_tell_answers_apart_and_refused_rows_are_remembered() -> None:
    async with running("processes") as ask:
        assert await ask(1.0) == [3.0]
        assert await ask(1.0, add=10) == [12.0]
        assert await ask(1.0, add=10) == [12.0]
        assert ask.calls["first"] == [1.0, 1.0]
        for _ in range(3):
            with pytest.raises(InvalidInput, match="no negative rows") as refused:
                await ask(1.0, -5.0)
            assert (refused.value.node, refused.value.row) == ("second", 1)
        assert ask.calls["second"].count(-4.0) == 1


async def test_a_report_names_a_node_whose_rows_were_all_there() -> None:
    async with running("processes") as ask:
        await ask(1.0)
        context = Context(timings=[])
        await ask.mesh(Tensors({"x": np.array([[1, 0]], np.float32)}), context)
        told = {timing.node: (timing.rows, timing.compute_s) for timing in context.timings or ()}
        assert told == {"first": (1, 0.0), "second": (1, 0.0)}


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_thousand_callers_at_once_are_one_computation(placement: str) -> None:
    async with running(placement, strict=False) as ask:
        answers = await asyncio.gather(*(ask(1.0) for _ in range(1000)))
        assert answers == [[3.0]] * 1000
        assert ask.calls["first"] == [1.0]
        # Replicas do not know what another is computing, only what it has.
        assert len(ask.calls["second"]) <= (2 if placement in ("apart", "beside") else 1)


async def test_keys_of_a_node_can_be_forgotten_one_by_one() -> None:
    async with running("processes") as ask:
        await ask(1.0, 2.0)
        graph = compile_text(FILE, LAYERS, folder=Path(__file__).parent).graph
        node = graph.node("second")
        keys = digest_rows(key_spec(node, graph.cache("shared")), Tensors({"x": np.array([[2, 1]], np.float32)}))
        unknown = (b"k" * 16,)
        assert (await ask.control(verb="delete", node="second", keys=(*keys, *unknown))).count == 1
        assert (await ask.control(verb="delete", node="second", keys=(*keys, *unknown))).count == 0
        await ask(1.0, 2.0)
        assert ask.calls == {"first": [1.0, 2.0], "second": [2.0, 3.0, 2.0]}


async def test_a_cache_that_cannot_be_reached_at_the_start_is_told_with_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = FILE.replace('"memory://", max_bytes: 1MiB', '"redis+unix:/nowhere/at/all.sock"')
    async with running("fused", text=text) as ask:
        assert await ask(1.0) == [3.0]
        assert await ask(1.0) == [3.0]
        assert ask.calls["first"] == [1.0, 1.0]
    (told,) = [record.message for record in caplog.records if "cannot be used now" in record.message]
    assert told.startswith("<text>:6: cache hot cannot be used now; going on without it: ")
    assert "nowhere" in told


async def test_another_model_or_version_never_finds_what_was_kept() -> None:
    def spec(**changed: object) -> KeySpec:
        graph = compile_text(FILE, LAYERS, folder=Path(__file__).parent).graph
        return key_spec(replace(graph.node("first"), **changed), graph.cache("hot"))  # type: ignore[arg-type]

    row = Tensors({"x": np.zeros((1, 2), np.float32)})
    specs = [spec(), spec(digest="a"), spec(digest="b"), spec(version="2"), spec(arguments={"name": "other"})]
    specs += [spec(uses="m:Other")]
    assert len({digest_rows(one, row)[0] for one in specs}) == len(specs)
    graph = compile_text(FILE, LAYERS, folder=Path(__file__).parent).graph
    node = graph.node("first")
    assert namespace_of(graph, node) == "cached/first@1"
    assert namespace_of(graph, replace(node, digest="0123456789abcdef")) == "cached/first@1-0123456789ab"
    assert namespace_of(graph, node, "0") == "cached/first@0"


BESIDE = f"""\
mesh: v1
name: beside
inputs:
  x: {{datatype: FP32, shape: [-1, 16384]}}
caches:
  hot: {{backend: "memory://", trust: shared}}
nodes:
  one: {{uses: "{NODES}:Noting", with: {{name: one}}, inputs: {{x: x}}, layers: [cache: {{in: hot}}]}}
  two: {{uses: "{NODES}:Noting", with: {{name: two}}, inputs: {{x: x}}, layers: [LAYERS]}}
outputs: {{one: one.label, two: two.label}}
"""


@pytest.mark.parametrize(("layers", "remembered"), [("cache: {in: hot}", True), ("", False)])
async def test_a_large_row_is_digested_once_for_all_caches_of_a_process(layers: str, remembered: bool) -> None:
    from tests.unit.runtime.cached_nodes import REMEMBERED

    REMEMBERED.clear()
    large = Tensors({"x": np.arange(2 * 16384, dtype=np.float32).reshape(2, -1)})
    async with running("fused", text=BESIDE.replace("LAYERS", layers)) as ask:
        assert (await ask.mesh(large, Context()))["two"].tolist() == [0, 16384]
        wanted = [blake3(row.tobytes()).digest() for row in large["x"]]
        assert dict.fromkeys(("one", "two"), wanted if remembered else None) == REMEMBERED
        REMEMBERED.clear()
        assert (await ask.mesh(large, Context()))["one"].tolist() == [0, 16384]
        assert "one" not in REMEMBERED
