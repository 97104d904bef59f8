"""Durations and sizes: text with a unit in, exact-enough text out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.units import format_duration, parse_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.00008, "80us"),
        (0.005, "5ms"),
        (1.5, "1.5s"),
        (120.0, "120s"),
        (3600.0, "1h"),
        (5400.0, "90m"),
        (3601.0, "3601s"),
        (86_400.0, "1d"),
        (14 * 86_400.0, "14d"),
        (1_000_001.0, "1000001s"),
    ],
)
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=1e-6, max_value=366 * 86_400.0))
def test_what_is_told_of_a_duration_can_be_read_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-3)
