from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.supervisor import Policy

counts = st.integers(1, 1000)
chances = st.floats(0, 1)
policies = st.builds(
    Policy,
    backoff_initial_s=st.floats(0.001, 100),
    backoff_max_s=st.floats(0.001, 1000),
    backoff_multiplier=st.floats(1, 1000),
    backoff_jitter=st.floats(0, 1),
)


def test_delay_doubles_up_to_the_longest() -> None:
    policy = Policy(backoff_initial_s=0.5, backoff_multiplier=2, backoff_max_s=3)
    assert [policy.backoff_s(crashes, 0) for crashes in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]


def test_jitter_only_shortens() -> None:
    policy = Policy(backoff_initial_s=1, backoff_jitter=0.25)
    assert policy.backoff_s(1, 0.5) == pytest.approx(0.875)


@given(policies, counts, chances)
def test_no_delay_is_negative_or_above_the_longest(policy: Policy, crashes: int, chance: float) -> None:
    assert 0 <= policy.backoff_s(crashes, chance) <= policy.backoff_max_s


@given(policies, st.integers(1, 999), chances)
def test_a_further_crash_never_shortens_the_delay(policy: Policy, crashes: int, chance: float) -> None:
    assert policy.backoff_s(crashes + 1, chance) >= policy.backoff_s(crashes, chance)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ready_timeout_s": 0},
        {"drain_grace_s": -1},
        {"kill_grace_s": math.inf},
        {"probe_interval_s": math.nan},
        {"crash_limit": 0},
        {"hung_after_probes": 1001},
        {"backoff_multiplier": 0.5},
        {"backoff_multiplier": math.nan},
        {"backoff_jitter": 1.1},
    ],
    ids=lambda wrong: "-".join(f"{name}={value}" for name, value in wrong.items()),
)
def test_what_is_not_a_bound_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Policy(**wrong)
