"""What `mesh cache`, `mesh stats` and `mesh graph --stats` make of what a mesh tells of its caches."""

from __future__ import annotations

import json

import pytest

from mesh.cli.counted import json_of_caches, json_of_statistics, node_notes
from mesh.cli.main import main
from mesh.cli.stats import cache_tables, tables
from mesh.cli.terminal import show
from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.topology.render import mermaid, svg
from mesh.transports.statistics import CachedStatistics, CacheStatistics, NodeStatistics, Statistics, together
from mesh.transports.statistics_codec import decode_statistics, encode_statistics
from tests.harness.meshes import TOPOLOGIES

TOLD = Statistics(
    graph="shared-cache",
    nodes=(NodeStatistics(node="digit", requests=3, rows=40, elapsed_s=0.03),),
    cached=(
        CachedStatistics(
            node="digit",
            cache="shared",
            hits=1200,
            misses=300,
            coalesced=12,
            stale=7,
            negative=3,
            refreshes=5,
            broken=2,
            recomputed=1,
            saved_s=4.25,
        ),
    ),
    caches=(
        CacheStatistics(
            cache="store",
            backend="memory://",
            holder="cache (7)",
            hits=30,
            misses=20,
            kept=10,
            evictions=4,
            expirations=3,
            failures=0,
            entries=10,
            nbytes=2048,
            max_bytes=1 << 20,
        ),
        CacheStatistics(cache="far", backend="redis://h:6379", holder="pred (8)", failures=9),
        CacheStatistics(cache="tall", backend="[memory://, redis://h]", holder="pred (8)", hits=5, misses=1),
        CacheStatistics(cache="tall", backend="memory://", holder="pred (8)", tier=1, hits=3, misses=3, entries=2),
        CacheStatistics(cache="tall", backend="redis://h", holder="pred (8)", tier=2, hits=2, misses=1),
    ),
)


def test_caches_cross_the_wire_as_they_are() -> None:
    assert decode_statistics(encode_statistics(TOLD)) == TOLD


def test_rows_of_several_workers_are_added_up_and_caches_stand_one_by_one() -> None:
    whole = together([TOLD, TOLD])
    assert (whole.cached[0].hits, whole.cached[0].saved_s) == (2400, 8.5)
    assert whole.cached[0].hit_ratio == TOLD.cached[0].hit_ratio == pytest.approx(1215 / 1515)
    assert len(whole.caches) == 10


def test_a_node_that_was_never_asked_has_no_share() -> None:
    assert CachedStatistics(node="a", cache="b").hit_ratio is None


def test_the_tables_have_what_was_spared_and_what_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    show(*cache_tables(TOLD))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["digit", "shared", "1,200", "300", "12", "7", "3", "2", "80.2%", "4.25"]
    assert lines[3] == ["store", "memory://", "cache", "(7)", "30", "20", "10", "4", "3", "0", "10", "2KiB", "1MiB"]
    assert lines[4] == ["far", "redis://h:6379", "pred", "(8)", "0", "0", "0", "0", "0", "9", "-", "-", "-"]
    assert [line[1:4] for line in lines[6:8]] == [["1.", "memory://", "pred"], ["2.", "redis://h", "pred"]]
    assert [line[5:7] for line in lines[6:8]] == [["3", "3"], ["2", "1"]]
    show(*tables(TOLD))
    assert "80.2%" in capsys.readouterr().out


def test_json_has_everything() -> None:
    told = json.loads(json.dumps(json_of_statistics(TOLD)))
    assert told["cached"] == json_of_caches(TOLD)["cached"]
    (cached,) = told["cached"]
    assert (cached["hits"], cached["saved_ms"], cached["recomputed"]) == (1200, 4250.0, 1)
    store, far, *tall = told["caches"]
    assert [(one["tier"], one["hits"]) for one in tall] == [(0, 5), (1, 3), (2, 2)]
    assert (store["bytes"], store["max_bytes"], store["entries"]) == (2048, 1 << 20, 10)
    assert (far["bytes"], far["failures"]) == (None, 9)


def test_the_picture_shows_the_share_and_what_a_cache_node_holds() -> None:
    notes = node_notes(TOLD)
    assert notes["digit"].endswith("80% cached")
    assert notes["store"] == "10 entries · 2KiB"
    plan = compile_file(TOPOLOGIES / "shared_cache.yaml", LAYERS).plan("shared")
    drawn = mermaid(plan, notes)
    assert 'node_store[("store<br>nodes.cache:MemoryCache<br>10 entries · 2KiB")]' in drawn
    assert "10 entries" in svg(plan, notes)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["clear", "grpc://127.0.0.1:1", "--version", "2"], 2, "say which with --node"),
        (["stats", "nowhere"], 2, "is no address"),
        (["stats", "grpc://127.0.0.1:1"], 1, "cannot be reached"),
        (["warm", "unix:/nowhere", "--node", "digit"], 1, "cannot be reached"),
        (["warm", str(TOPOLOGIES / "serial.yaml"), "--node", "nope"], 1, "no node is called 'nope'"),
        (["warm", str(TOPOLOGIES / "inference_cache.yaml"), "--node", "magika"], 2, "would be gone with this command"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *arguments]) == code
    assert why in capsys.readouterr().err
