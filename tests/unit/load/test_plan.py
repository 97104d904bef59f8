from __future__ import annotations

import math
from typing import Any

import pytest

from mesh.errors import SetupError
from mesh.load import LoadPlan


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "it needs duration_s or requests"),
        ({"requests": 0}, "requests is at least 1"),
        ({"duration_s": 0.0}, "duration_s is above 0 and finite"),
        ({"duration_s": math.inf}, "duration_s is above 0 and finite"),
        ({"duration_s": math.nan}, "duration_s is above 0 and finite"),
        ({"requests": 1, "concurrency": 0}, "concurrency is from 1 to 65536"),
        ({"requests": 1, "rate_per_s": 5.0}, "rate_per_s is for an open loop, not for mode closed"),
        ({"requests": 1, "mode": "poisson"}, "mode poisson needs rate_per_s"),
        ({"requests": 1, "mode": "constant", "rate_per_s": 0.0}, "rate_per_s is above 0 and at most 100000"),
        ({"requests": 1, "mode": "constant", "rate_per_s": math.nan}, "rate_per_s is above 0 and at most 100000"),
        (
            {"requests": 1, "mode": "constant", "rate_per_s": 1.0, "concurrency": 2},
            "concurrency is for a closed loop, not for mode constant",
        ),
        ({"requests": 1, "mode": "burst"}, "mode 'burst' is none of closed, constant, poisson"),
        ({"requests": 1, "warm_up_s": -1.0}, "warm_up_s is finite and not below 0"),
        ({"requests": 1, "warm_up_requests": -1}, "warm_up_requests is not below 0"),
        (
            {"requests": 1, "warm_up_s": 1.0, "warm_up_requests": 1},
            "warm_up_s and warm_up_requests exclude each other",
        ),
        ({"requests": 1, "max_in_flight": 0}, "max_in_flight is from 1 to 65536"),
        ({"requests": 1, "timeout_s": 0.0}, "timeout_s is above 0 and finite"),
        ({"requests": 1, "max_samples": 0}, "max_samples is at least 1"),
    ],
)
def test_plan_that_cannot_be_run_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(SetupError) as caught:
        LoadPlan(**fields)
    assert text in str(caught.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(SetupError) as caught:
        LoadPlan(mode="poisson", concurrency=0, timeout_s=-1.0)
    assert str(caught.value).count(";") == 4


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        (LoadPlan(concurrency=8, duration_s=10), "closed loop, 8 at once, for 10s, timeout 10s"),
        (
            LoadPlan(mode="poisson", rate_per_s=500, duration_s=10, warm_up_s=1, max_in_flight=256),
            "poisson 500/s for 10s after 1s of warm-up, at most 256 in flight, timeout 10s",
        ),
        (
            LoadPlan(requests=50, duration_s=3, warm_up_requests=5, timeout_s=0.5),
            "closed loop, 1 at once, for 3s or 50 requests after 5 requests of warm-up, timeout 500ms",
        ),
    ],
)
def test_plan_reads_as_one_line(plan: LoadPlan, line: str) -> None:
    assert str(plan) == line
