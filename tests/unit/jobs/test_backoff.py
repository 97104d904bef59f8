from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.jobs.work.backoff import HINT_MOST_S, Backoff

backoffs = st.builds(Backoff, first_s=st.floats(0, 100), most_s=st.floats(100, 1000), factor=st.floats(1, 10))


class Most(random.Random):
    """The worst of luck: as near to 1 as a random number gets."""

    def random(self) -> float:
        return 1 - 2**-53


def test_the_longest_wait_doubles_until_it_is_as_long_as_any_gets() -> None:
    backoff = Backoff(first_s=1, most_s=60)
    assert [backoff.longest_s(made) for made in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_jitter_is_full() -> None:
    backoff, chance = Backoff(first_s=8, most_s=8), random.Random(7)
    delays = [backoff.delay_s(1, chance) for _ in range(2000)]
    assert min(delays) < 0.1
    assert max(delays) > 7.9
    assert 3.8 < sum(delays) / len(delays) < 4.2


def test_the_same_seed_waits_as_long() -> None:
    backoff = Backoff()
    one, other = random.Random(3), random.Random(3)
    assert [backoff.delay_s(n, one) for n in range(1, 9)] == [backoff.delay_s(n, other) for n in range(1, 9)]


def test_a_hint_is_waited_for_and_the_jitter_comes_on_top() -> None:
    assert Backoff(first_s=1, most_s=1).delay_s(1, Most(), hint_s=5) == pytest.approx(6)
    assert Backoff(first_s=0, most_s=0).delay_s(1, Most(), hint_s=5) == 5


@given(backoffs, st.integers(1, 10**9), st.floats(-10, 1e6), st.one_of(st.none(), st.floats(0, 1e6)))
@settings(max_examples=200)
def test_every_wait_is_bounded_and_none_is_sooner_than_the_hint(
    backoff: Backoff, made: int, hint_s: float, within_s: float | None
) -> None:
    delay_s = backoff.delay_s(made, random.Random(1), hint_s=hint_s, within_s=within_s)
    hint_s = min(max(0.0, hint_s), HINT_MOST_S)
    assert hint_s <= delay_s <= hint_s + backoff.most_s
    if within_s is not None and hint_s < within_s:
        assert delay_s <= within_s


@pytest.mark.parametrize(("first", "most", "factor"), [(2, 1, 2), (-1, 1, 2), (1, 2, 0.5), (float("nan"), 1, 2)])
def test_what_is_no_backoff_is_refused(first: float, most: float, factor: float) -> None:
    with pytest.raises(ValueError, match="is no back-off"):
        Backoff(first_s=first, most_s=most, factor=factor)
