from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import Array
from nodes.ocr_boxes import MAX_SIDE, boxes_of, cut_out, detector_input, in_reading_order, size_of

RNG = np.random.default_rng(0)


def upright(left: float, top: float, right: float, bottom: float) -> Array:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 400), st.integers(400, 1300))
def test_what_the_detector_takes_is_of_multiples_of_32_and_bounded(
    height: int, width: int, shortest: int, longest: int
) -> None:
    page = np.zeros((height, width, 3), np.uint8)
    shape = detector_input(page, shortest, longest).shape
    assert shape[:2] == (1, 3)
    assert all(side % 32 == 0 and 32 <= side <= longest + 16 for side in shape[2:])
    if longest * min(height, width) > shortest * max(height, width):
        assert min(shape[2:]) >= shortest - 16


def test_a_page_as_long_as_may_be_is_taken() -> None:
    assert detector_input(np.zeros((1, MAX_SIDE, 3), np.uint8), 320, 1280).shape == (1, 3, 32, 1280)


def test_the_detector_sees_blue_first_from_minus_1_to_1() -> None:
    given = detector_input(np.full((64, 64, 3), (255, 0, 51), np.uint8), 32, 64)
    assert given[0, :, 5, 5].tolist() == pytest.approx([-0.6, -1, 1])


def test_a_core_is_grown_by_its_area_over_its_circumference_and_told_in_the_pixels_of_the_page() -> None:
    heat = np.zeros((64, 128), np.float32)
    heat[20:29, 20:99] = 0.9
    (box,) = boxes_of(heat, height=128, width=512)
    # The mask is one pixel larger to the right and below; a contour runs through the middles of pixels.
    width, height = 79.0, 9.0
    out = width * height * 1.6 / (width + height) / 2
    expected = upright(20 - out, 20 - out, 20 + width + out, 20 + height + out) * np.array([4, 2])
    assert np.abs(box - expected).max() < 0.01


@pytest.mark.parametrize(
    ("core", "value"), [((10, 12, 20, 90), 0.9), ((10, 30, 20, 90), 0.4)], ids=["too thin", "too unsure"]
)
def test_what_is_thin_or_unsure_is_no_line(core: tuple[int, int, int, int], value: float) -> None:
    top, bottom, left, right = core
    heat = np.zeros((64, 128), np.float32)
    heat[top:bottom, left:right] = value
    assert boxes_of(heat, 64, 128).shape == (0, 4, 2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_core_becomes_a_box_around_it(data: st.DataObject) -> None:
    heat = np.zeros((160, 320), np.float32)
    cores: list[tuple[int, int, int, int]] = []
    for row in range(data.draw(st.integers(1, 4))):
        top, left = 40 * row + data.draw(st.integers(4, 12)), data.draw(st.integers(4, 60))
        cores.append((left, top, left + data.draw(st.integers(20, 200)), top + data.draw(st.integers(6, 14))))
        heat[top : cores[-1][3], left : cores[-1][2]] = 0.8
    boxes = boxes_of(heat, 160, 320)
    boxes = boxes[in_reading_order(boxes)]
    assert len(boxes) == len(cores)
    for box, (left, top, right, bottom) in zip(boxes, cores, strict=True):
        assert (box[0] < (left, top)).all()
        assert (box[2] > (right - 1, bottom - 1)).all()


def test_lines_are_read_from_top_to_bottom_and_in_a_line_from_left_to_right() -> None:
    boxes = np.stack(
        [
            upright(200, 0, 300, 20),
            upright(0, 8, 100, 28),  # a little lower than what stands to its right
            upright(50, 60, 300, 80),
            upright(0, 31, 300, 51),
        ]
    )
    assert in_reading_order(boxes).tolist() == [1, 0, 3, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 200)), max_size=12), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_order_in_which_lines_were_found(
    places: list[tuple[int, int]], random: Random
) -> None:
    # Lines that do not overlap in height: then there is one right order.
    boxes = np.array([upright(left, 40 * row, left + wide, 40 * row + 20) for row, (left, wide) in enumerate(places)])
    boxes = boxes.reshape(-1, 4, 2)
    found = np.array(random.sample(range(len(boxes)), len(boxes)), np.int64)
    assert found[in_reading_order(boxes[found])].tolist() == list(range(len(boxes)))


def test_a_level_box_is_cut_out_bit_for_bit() -> None:
    page = RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    assert (cut_out(page, upright(10, 20, 70, 40)) == page[20:40, 10:70]).all()


def test_a_line_that_runs_down_is_laid_on_its_side() -> None:
    page = RNG.integers(0, 256, (90, 60, 3), dtype=np.uint8)
    assert (cut_out(page, upright(10, 20, 30, 70)) == np.rot90(page[20:70, 10:30])).all()


def test_what_reaches_outside_the_page_repeats_its_edge() -> None:
    page = RNG.integers(0, 256, (20, 40, 3), dtype=np.uint8)
    cut = cut_out(page, upright(-5, 0, 40, 20))
    assert cut.shape == (20, 45, 3)
    assert (cut[:, :5] == page[:, :1]).all()


def test_the_smallest_box_has_a_pixel() -> None:
    assert size_of(upright(3, 3, 3.1, 3.1)) == (1, 1)
