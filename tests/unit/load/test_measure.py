from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import NodeTiming
from mesh.errors import InvalidInput, Unavailable
from mesh.load.measure import MAX_NODES, MAX_TEXT, MAX_WORKERS, Recorder, Sample

durations = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=1200)


def sample_of(values: list[float], *, bound: int = 10_000, seed: int = 0) -> Sample:
    sample = Sample(bound, seed)
    for value in values:
        sample.add(value)
    return sample


@given(durations)
def test_percentiles_are_those_of_numpy(values: list[float]) -> None:
    found = sample_of(values).distribution()
    levels = (found.p50, found.p90, found.p95, found.p99, found.p99_9)
    assert levels == tuple(np.quantile(values, (0.5, 0.9, 0.95, 0.99, 0.999), method="inverted_cdf"))
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.max, found.count, found.kept) == (max(values), len(values), len(values))


@given(durations)
def test_order_of_arrival_does_not_matter(values: list[float]) -> None:
    found, sorted_first = sample_of(values).distribution(), sample_of(sorted(values)).distribution()
    assert (found.p50, found.p99, found.max) == (sorted_first.p50, sorted_first.p99, sorted_first.max)


@pytest.mark.parametrize(("count", "p99", "p99_9"), [(1, 1, 1), (99, 99, 99), (100, 99, 100), (1000, 990, 999)])
def test_percentile_is_a_value_that_was_seen(count: int, p99: float, p99_9: float) -> None:
    found = sample_of([float(value) for value in range(1, count + 1)]).distribution()
    assert (found.p99, found.p99_9) == (p99, p99_9)


@given(durations, st.integers(min_value=1, max_value=50), st.integers())
def test_beyond_its_bound_a_sample_stays_small_and_exact_in_count_mean_and_max(
    values: list[float], bound: int, seed: int
) -> None:
    found = sample_of(values, bound=bound, seed=seed).distribution()
    assert (found.count, found.kept, found.max) == (len(values), min(bound, len(values)), max(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert {found.p50, found.p99} <= set(values)


def test_what_is_kept_beyond_the_bound_is_a_uniform_choice() -> None:
    found = sample_of([float(value) for value in range(50_000)], bound=2_000, seed=7).distribution()
    assert found.p50 == pytest.approx(25_000, rel=0.05)
    assert found.p90 == pytest.approx(45_000, rel=0.02)


def test_choice_beyond_the_bound_follows_the_seed() -> None:
    values = [float(value) for value in range(1_000)]
    first, again, other = (sample_of(values, bound=50, seed=seed).distribution() for seed in (1, 1, 2))
    assert first == again != other


def test_latency_counts_from_the_intended_instant() -> None:
    record = Recorder(max_samples=10, seed=0)
    record.send(measured=True)
    record.answer(2.0, 2.5, (), measured=True)
    assert record.latency.distribution().max == 0.5
    assert (record.sent, record.answered, record.in_flight, record.last_answer) == (1, 1, 0, 2.5)


def test_warm_up_is_in_flight_but_not_measured() -> None:
    record = Recorder(max_samples=10, seed=0)
    for _ in range(3):
        record.send(measured=False)
    assert record.in_flight == 3
    record.answer(0.0, 9.0, (NodeTiming(node="a"),), measured=False)
    record.fail(Unavailable("gone"), measured=False)
    assert (record.in_flight, record.warm_up) == (1, 3)
    assert (record.sent, record.answered, record.failed, record.errors(), record.nodes()) == (0, 0, 0, (), ())


def test_errors_are_counted_by_status_the_most_frequent_first() -> None:
    record = Recorder(max_samples=10, seed=0)
    for error in (InvalidInput("bad", node="scale"), Unavailable("gone"), Unavailable("gone again")):
        record.send(measured=True)
        record.fail(error, measured=True)
    assert [(e.code, e.count, e.first_text) for e in record.errors()] == [
        ("UNAVAILABLE", 2, "gone"),
        ("INVALID_ARGUMENT", 1, "node scale: bad"),
    ]
    assert (record.failed, record.answered, record.in_flight) == (3, 0, 0)


def test_text_of_an_error_is_made_safe_for_a_terminal() -> None:
    record = Recorder(max_samples=10, seed=0)
    record.send(measured=True)
    record.fail(Unavailable("\x1b[31mred\n" + "x" * 1000), measured=True)
    text = record.errors()[0].first_text
    assert text.startswith("�[31mred�xxx")
    assert len(text) == MAX_TEXT


def test_nodes_share_their_own_durations_rows_and_workers() -> None:
    record = Recorder(max_samples=10, seed=0)
    for index in range(1, 101):
        worker = "left" if index % 2 else "right"
        timings = (
            NodeTiming(node="prep", rows=2, compute_s=1.0),
            NodeTiming(node="pred", worker=worker, rows=3, queue_s=index, compute_s=2.0 * index, wire_s=3.0 * index),
        )
        record.send(measured=True)
        record.answer(0.0, 1.0, timings, measured=True)
    prep, pred = record.nodes()
    assert (prep.node, prep.workers, prep.rows, prep.compute.mean, prep.queue.max) == ("prep", (), 200, 1.0, 0.0)
    assert (pred.node, pred.workers, pred.rows) == ("pred", ("left", "right"), 300)
    assert (pred.queue.p99, pred.compute.p99, pred.wire.p99) == (99.0, 198.0, 297.0)
    assert (pred.queue.mean, pred.compute.mean, pred.wire.mean) == (50.5, 101.0, 151.5)


def test_names_from_outside_cannot_fill_the_memory() -> None:
    record = Recorder(max_samples=10, seed=0)
    timings = [NodeTiming(node=f"node-{index}") for index in range(MAX_NODES + 1)]
    timings += [NodeTiming(node="node-0", worker=f"worker-{index}") for index in range(MAX_WORKERS + 1)]
    record.send(measured=True)
    record.answer(0.0, 1.0, timings, measured=True)
    assert len(record.nodes()) == MAX_NODES
    assert len(record.nodes()[0].workers) == MAX_WORKERS
