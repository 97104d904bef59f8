from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import Array
from nodes.ocr_ctc import decode

CHARACTERS = ["", "a", "b", "\u2026"]


def scores(steps: list[int], sure: float = 0.7) -> Array:
    rows = np.full((len(steps), len(CHARACTERS)), (1 - sure) / (len(CHARACTERS) - 1), np.float32)
    rows[np.arange(len(steps)), steps] = sure
    return rows


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_repeats_count_once_and_blanks_part_them(steps: list[int]) -> None:
    text, score = decode(scores(steps), CHARACTERS)
    assert text == "".join(CHARACTERS[step] for step, _ in groupby(steps) if step != 0)
    assert score == (pytest.approx(0.7) if text else 0)


def test_the_score_is_the_mean_of_the_steps_that_are_kept() -> None:
    steps = scores([1, 1, 0, 1, 2])
    steps[0, 1], steps[1, 1], steps[2, 0], steps[3, 1], steps[4, 2] = 0.9, 0.99, 0.99, 0.6, 0.6
    assert decode(steps, CHARACTERS) == ("aab", pytest.approx((0.9 + 0.6 + 0.6) / 3))
