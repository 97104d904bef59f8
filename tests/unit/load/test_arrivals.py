from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.load.arrivals import Phase, Window, offsets
from mesh.load.plan import LoadPlan


def first(count: int, plan: LoadPlan) -> list[float]:
    return list(islice(offsets(plan), count))


def poisson(rate_per_s: float, seed: int) -> LoadPlan:
    return LoadPlan(mode="poisson", rate_per_s=rate_per_s, requests=1, seed=seed)


@given(st.floats(min_value=0.01, max_value=100_000))
def test_constant_arrivals_are_multiples_of_the_gap_and_do_not_drift(rate: float) -> None:
    plan = LoadPlan(mode="constant", rate_per_s=rate, requests=1)
    assert first(1_000, plan) == [index / rate for index in range(1_000)]


@pytest.mark.parametrize("rate", [0.5, 200.0, 50_000.0])
def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential(rate: float) -> None:
    count = 20_000
    gaps = np.diff(np.array([0.0, *first(count, poisson(rate, seed=3))])) * rate
    # Four standard errors: 4 / sqrt(20,000) for the mean; the deviation of an exponential equals its mean.
    assert gaps.mean() == pytest.approx(1.0, abs=0.03)
    assert gaps.std() == pytest.approx(1.0, abs=0.06)
    assert (gaps > 1.0).mean() == pytest.approx(np.exp(-1), abs=0.015)
    assert gaps.min() > 0


def test_poisson_counts_vary_as_much_as_their_mean() -> None:
    arrivals = np.array(first(20_000, poisson(10.0, seed=5)))
    counts = np.bincount(arrivals.astype(int))[:1_900]
    assert counts.mean() == pytest.approx(10.0, rel=0.05)
    assert counts.var() == pytest.approx(10.0, rel=0.2)


def test_poisson_arrivals_follow_the_seed() -> None:
    assert first(50, poisson(10, seed=1)) == first(50, poisson(10, seed=1)) != first(50, poisson(10, seed=2))


def phases(window: Window, instants: list[float]) -> list[Phase]:
    return [window.admit(instant) for instant in instants]


WARM, MEASURED, OVER = Phase.WARM_UP, Phase.MEASURED, Phase.OVER


def test_duration_is_measured_after_the_warm_up() -> None:
    window = Window(LoadPlan(duration_s=2, warm_up_s=1), start=100)
    assert phases(window, [100, 100.9, 101, 102.9, 103]) == [WARM, WARM, MEASURED, MEASURED, OVER]
    assert (window.begins, window.closed) == (101, 103)


def test_requests_are_counted_after_the_warm_up() -> None:
    window = Window(LoadPlan(requests=2, warm_up_s=1), start=0)
    assert phases(window, [0, 0.5, 1, 1.5, 2, 2.5]) == [WARM, WARM, MEASURED, MEASURED, OVER, OVER]
    assert window.closed == 2


def test_warm_up_in_requests_lets_the_duration_begin_with_the_first_that_is_measured() -> None:
    window = Window(LoadPlan(duration_s=2, warm_up_requests=2), start=0)
    assert phases(window, [0, 5, 7, 8.9, 9]) == [WARM, WARM, MEASURED, MEASURED, OVER]
    assert (window.begins, window.closed) == (7, 9)


def test_whichever_of_duration_and_requests_comes_first_ends_it() -> None:
    assert phases(Window(LoadPlan(duration_s=2, requests=9), start=0), [0, 1, 2]) == [MEASURED, MEASURED, OVER]
    assert phases(Window(LoadPlan(duration_s=9, requests=2), start=0), [0, 1, 2]) == [MEASURED, MEASURED, OVER]


def test_window_closes_at_its_end_even_where_the_next_arrival_is_later() -> None:
    window = Window(LoadPlan(duration_s=2), start=0)
    assert phases(window, [0, 50]) == [MEASURED, OVER]
    assert window.closed == 2
