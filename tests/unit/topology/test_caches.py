"""`caches:`, the layers that name them, and cache nodes: each mistake in its place and in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mesh.errors import TopologyError
from mesh.layers import LAYERS
from mesh.topology import Compiled, compile_text, json_schema
from mesh.topology.caches import nodes_named
from mesh.topology.source import read
from tests.unit.topology.given import NODES, changed

GOOD = f"""\
mesh: v1
name: cached
inputs:
  image: {{datatype: FP32, shape: [-1, 64]}}
caches:
  hot: {{backend: "memory://", max_bytes: 64KiB}}
  shared:
    tiers: ["memory://", "mesh://store", "redis://10.0.0.5:6379/1"]
    timeout: 50ms
    trust: shared
nodes:
  scale:
    uses: {NODES}:Scale
    with: {{divide_by: 16}}
    inputs: {{x: image}}
    layers:
      - cache: {{in: shared}}
  model:
    uses: {NODES}:Model
    inputs: {{X: scale.x}}
    layers:
      - cache: {{in: hot, ttl: 60s, stale: 30s, key: [X], parameters: [lang], negative: 5s}}
      - batch:
  store:
    uses: nodes.cache:MemoryCache
    with: {{max_bytes: 1MiB}}
outputs:
  p: model.p
placements:
  two:
    front: {{nodes: [scale, model]}}
    back: {{nodes: [store]}}
"""
HOT = '  hot: {backend: "memory://", max_bytes: 64KiB}\n'
LAYER = "{in: hot, ttl: 60s, stale: 30s, key: [X], parameters: [lang], negative: 5s}"
STORE = "    with: {max_bytes: 1MiB}\n"
UNUSED = "is used by no node (write layers: [cache: {in: ...}], or take it out)"
NO_ROWS = "(no rows come to it; a cache names it as mesh://)"
A_SIZE = "a size: write a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), as in 64MiB"
A_DURATION = "a duration: write a number and a unit (us, ms, s, m, h, d), as in 5ms"
ALL_TIERS = '["memory://", "mesh://store", "redis://10.0.0.5:6379/1"]'
SCHEMES = "there are memory:, redis:, rediss:, redis+unix:, mesh:"
SCHEMA = Draft202012Validator(json_schema(LAYERS))


def compiled(text: str) -> Compiled:
    return compile_text(text, LAYERS, file="t.yaml", folder=Path(__file__).parent)


def told(text: str) -> list[str]:
    try:
        compiled(text)
    except TopologyError as error:
        return [str(one).removeprefix("t.yaml:").replace(" error:", "", 1) for one in error.problems]
    return []


def test_a_graph_knows_its_caches_and_where_they_are_written() -> None:
    graph = compiled(GOOD).graph
    hot, shared = graph.caches
    assert (hot.name, hot.where, hot.max_bytes, hot.trust, hot.line) == ("hot", ("memory://",), 1 << 16, "private", 6)
    assert (shared.name, shared.timeout_s, shared.trust, shared.line) == ("shared", 0.05, "shared", 7)
    assert shared.nodes == ["store"]
    assert {node.name: node.cache for node in graph.nodes} == {"scale": "shared", "model": "hot", "store": ""}


@pytest.mark.parametrize("placement", ["fused", "processes", "two"])
def test_a_cache_node_is_placed_and_is_no_part_of_the_flow(placement: str) -> None:
    plan = compiled(GOOD).plan(placement)
    assert sum("store" in worker.nodes for worker in plan.workers) == 1
    assert all("store" not in part.nodes for part in plan.partitions)


def test_caches_do_not_change_what_a_graph_is() -> None:
    other = changed("max_bytes: 64KiB", "max_bytes: 65KiB", GOOD)
    assert compiled(other).graph.digest == compiled(GOOD).graph.digest


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        (HOT, "", ["21:21: no cache is called 'hot' (there is: shared)"]),
        (
            "in: hot,",
            "in: hit,",
            [f"6:3: cache 'hot' {UNUSED}", "22:21: no cache is called 'hit' (did you mean 'hot'?)"],
        ),
        (
            HOT,
            f"{HOT}  cold: {{backend: 'memory://'}}\n",
            [f"7:3: cache 'cold' {UNUSED}"],
        ),
        (
            "  hot: {",
            "  hot: {tiers: [a://, b://], ",
            ["6:3: cache 'hot' has both a backend and tiers: it needs one of the two"],
        ),
        ('backend: "memory://", ', "", ["6:3: cache 'hot' has neither a backend nor tiers: it needs one of the two"]),
        ('backend: "memory://"', "backend: 5", ["6:18: 'backend' has to be a text, not 5 (put it in quotes)"]),
        (
            'backend: "memory://"',
            "backend: memcached://x",
            [f"6:18: no cache backend is called 'memcached': {SCHEMES}"],
        ),
        (
            'backend: "memory://"',
            "backend: redis://",
            [
                "6:18: a cache's address names no host: write redis://host:port/db, rediss://host:port/db or "
                "redis+unix:/path?db=N"
            ],
        ),
        ('backend: "memory://"', "backend: mesh://stor", ["6:18: 'mesh://stor' names no node (did you mean 'store'?)"]),
        (
            'backend: "memory://"',
            "backend: mesh://scale",
            ["6:18: node 'scale' is no cache (as nodes.cache:MemoryCache is one)"],
        ),
        ('"mesh://store", ', '"mesh://store", "memory://", ', ["8:42: tier 'memory://' comes twice"]),
        (ALL_TIERS, '["mesh://store"]', ["8:12: 'tiers' is too short"]),
        ("max_bytes: 64KiB", "max_bytes: 1KiB", ["6:42: 'max_bytes' has to be at least 4KiB, not '1KiB'"]),
        ("max_bytes: 64KiB", "max_bytes: 64", [f"6:42: 'max_bytes': 64 is not {A_SIZE}"]),
        ("timeout: 50ms", "timeout: 0ms", ["9:14: 'timeout' has to be above 0s, not '0ms'"]),
        ("trust: shared", "trust: none", ["10:12: 'trust' has to be 'private' or 'shared', not 'none'"]),
        ("max_bytes: 64KiB", "maxbytes: 64KiB", ["6:31: 'maxbytes' is not taken here (did you mean 'max_bytes'?)"]),
        (
            "  hot: {",
            "  scale: {",
            [
                "6:3: 'scale' is the name of a node as well",
                f"6:3: cache 'scale' {UNUSED}",
                "22:21: no cache is called 'hot' (there is: scale, shared)",
            ],
        ),
        ("ttl: 60s", "ttl: 0s", ["22:31: 'ttl' has to be above 0s, not '0s'"]),
        ("ttl: 60s", "ttl: -1s", [f"22:31: 'ttl': '-1s' is not {A_DURATION}"]),
        ("key: [X]", "key: [Y]", ["22:54: node 'model' has no input 'Y' (there is: X)"]),
        ("key: [X]", "key: []", ["22:53: 'key' may not be empty"]),
        (
            LAYER,
            "{in: hot}\n      - cache: {in: shared}",
            ["23:9: node 'model' has a cache already"],
        ),
        (
            "max_bytes: 64KiB",
            "max_value: 32B",
            [
                "22:21: an answer of node 'model' never fits: "
                "a cache whose values have at most 32 bytes cannot hold one of 80"
            ],
        ),
        (
            '["memory://", "mesh://store", ',
            '["memory://", ',
            ["24:3: cache node 'store' is used by no cache (write caches: {...: {backend: mesh://store}})"],
        ),
        (STORE, f"{STORE}    inputs: {{x: image}}\n", [f"27:5: node 'store' is a cache: it takes no inputs {NO_ROWS}"]),
        (
            STORE,
            f"{STORE}    when: 'true'\n    layers: [batch: {{}}]\n",
            [
                f"27:5: node 'store' is a cache: it takes no when {NO_ROWS}",
                f"28:5: node 'store' is a cache: it takes no layers {NO_ROWS}",
            ],
        ),
        (
            "back: {nodes: [store]}",
            "back: {nodes: [store], replicas: 2}",
            [
                "32:38: replicas of a worker with a cache node, 'store', would each keep their own "
                "(give it a worker of its own)"
            ],
        ),
    ],
)
def test_a_mistake_is_told_in_its_place(old: str, new: str, problems: list[str]) -> None:
    assert told(changed(old, new, GOOD)) == problems


def test_a_cache_node_gives_nothing_to_anybody() -> None:
    assert "28:6: node 'store' gives no tensor 'p'" in told(changed("p: model.p", "p: store.p", GOOD))


def test_the_schema_takes_caches_and_cache_nodes() -> None:
    assert SCHEMA.is_valid(read(GOOD, "t.yaml").value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('backend: "memory://", ', ""),
        ("  hot: {", "  hot: {tiers: ['memory://', 'mesh://store'], "),
        ("max_bytes: 64KiB", "max_bytes: 64"),
        ("timeout: 50ms", "timeout: 50"),
        ("trust: shared", "trust: none"),
        ("in: hot, ", ""),
        ("key: [X]", "key: X"),
        ("key: [X]", "key: []"),
        (STORE, f"{STORE}    layers: []\n"),
    ],
)
def test_the_schema_refuses_what_has_another_shape(old: str, new: str) -> None:
    assert not SCHEMA.is_valid(read(changed(old, new, GOOD), "t.yaml").value)


@pytest.mark.parametrize(
    "junk", [None, 5, "x", [], {"a": 5}, {"a": {"backend": 5, "tiers": 5}}, {"a": {"tiers": [5, {}]}}]
)
def test_whatever_stands_under_caches_can_be_looked_through(junk: object) -> None:
    assert nodes_named(junk) == set()
