"""The geometry of finding lines on a page: from pixels to a detector's input, from its answer to boxes and cut-outs.

The detector is one of "Real-time Scene Text Detection with Differentiable Binarization" (Liao et al., 2020,
https://arxiv.org/abs/1911.08947): for each pixel the probability that it lies in the core of a line. What turns those
into boxes, and its constants, follow PaddleOCR (DBPostProcess, Apache-2.0). One thing is simpler here: a core is grown
as the rectangle it is, which for a rectangle is what clipping polygons would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from mesh import Array

__all__ = ["MAX_SIDE", "boxes_of", "cut_out", "detector_input", "in_reading_order", "size_of"]

MAX_SIDE = 1 << 14
"""The longest side of a page, in pixels: OpenCV warps nothing of 32,767 or more, and a box may be wider than a page."""

_MULTIPLE = 32
"""The detector halves its input five times."""
_CORE = 0.3
"""Probability from which on a pixel belongs to a core."""
_SURE = 0.5
"""Mean probability below which a core is none."""
_THINNEST = 3
"""Pixels below which a core is none."""
_GROWTH = 1.6
"""A core's sides move out by its area, times this, over its circumference."""
_UPRIGHT = 1.5
"""A cut-out that is this much higher than wide was a line that runs up or down."""


def detector_input(pixels: Array, shortest: int, longest: int) -> Array:
    """What the detector takes of a page.

    Args:
        pixels: UINT8[height, width, 3], RGB.
        shortest: The page is made larger until its short side has so many pixels,
        longest: but never so that its long side has more than this, to which larger pages are made smaller.

    Returns:
        FP32[1, 3, h, w], BGR, from -1 to 1; h and w the nearest multiples of 32.
    """
    height, width = pixels.shape[:2]
    scale = min(max(1.0, shortest / min(height, width)), longest / max(height, width))
    h, w = (max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (height, width))
    resized = cv2.resize(pixels, (w, h))[:, :, ::-1].astype(np.float32)
    return np.ascontiguousarray((resized / 127.5 - 1).transpose(2, 0, 1)[None])


def boxes_of(heat: Array, height: int, width: int) -> Array:
    """The lines that the detector saw, in no order.

    Args:
        heat: FP32[h, w], the probabilities.
        height: Of the page, in pixels.
        width: Of the page, in pixels.

    Returns:
        FP32[lines, 4, 2]: x and y of the corners in the page's pixels, clockwise from the top left. What was grown at
        the edge reaches outside the page.
    """
    scale = np.array([width / heat.shape[1], height / heat.shape[0]], np.float32)
    boxes = [_clockwise(corners * scale) for corners in _grown_cores(heat)]
    return np.stack(boxes).astype(np.float32) if boxes else np.empty((0, 4, 2), np.float32)


def _grown_cores(heat: Array) -> Iterator[Array]:
    mask = cv2.dilate((heat > _CORE).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        (x, y), (w, h), angle = cv2.minAreaRect(contour)
        if min(w, h) < _THINNEST or _mean_inside(heat, np.asarray(contour)) < _SURE:
            continue
        out = 2 * w * h * _GROWTH / (2 * (w + h))
        yield np.asarray(cv2.boxPoints(((x, y), (w + out, h + out), angle)))


def _mean_inside(heat: Array, contour: Array) -> float:
    x, y, w, h = cv2.boundingRect(contour)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [contour - np.array([x, y])], [1])
    return float(heat[y : y + h, x : x + w][inside == 1].mean())


def _clockwise(corners: Array) -> Array:
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    left, right = left[np.argsort(left[:, 1])], right[np.argsort(right[:, 1])]
    return np.stack([left[0], right[0], right[1], left[1]])


def in_reading_order(boxes: Array) -> Array:
    """The order of the boxes from top to bottom and, in one line of text, from left to right: INT64[lines].

    Two boxes are in one line of text when their middles are less apart, in height, than half the lower one is high.
    Columns are read across: which lines belong to a column is not looked at.
    """
    middles, heights = boxes[:, :, 1].mean(axis=1), np.ptp(boxes[:, :, 1], axis=1)
    lines: list[list[int]] = []
    for index in np.argsort(middles, kind="stable").tolist():
        if lines:
            first = lines[-1][0]
            apart = middles[index] - middles[first]
            if apart < min(heights[index], heights[first]) / 2:
                lines[-1].append(index)
                continue
        lines.append([index])
    left = boxes[:, :, 0].min(axis=1)
    ordered = [index for line in lines for index in sorted(line, key=lambda index: float(left[index]))]
    return np.array(ordered, np.int64)


def size_of(corners: Array) -> tuple[int, int]:
    """Height and width that a box is cut out at, in pixels: those of its longer sides, at least 1."""
    top_left, top_right, bottom_right, bottom_left = corners.tolist()
    width = max(math.dist(top_left, top_right), math.dist(bottom_left, bottom_right))
    height = max(math.dist(top_left, bottom_left), math.dist(top_right, bottom_right))
    return max(1, round(height)), max(1, round(width))


def cut_out(pixels: Array, corners: Array) -> Array:
    """The inside of a box, made level: UINT8[h, w, 3]. A line that runs up or down is laid on its side."""
    height, width = size_of(corners)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    how = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    cut = cv2.warpPerspective(pixels, how, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(cut)) if height >= _UPRIGHT * width else np.asarray(cut)
