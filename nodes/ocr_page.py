"""Which way up a page is, and turning it. Needs Pillow and OpenCV (`pip install inference-mesh[examples]`).

Pages differ in size, so on an edge a page is a picture file, one BYTES a row: the row stays a row, and a file is a
fraction of its pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from mesh import Array, Context, Preprocess, SetupError, Signature, Size, Tensors
from nodes.picture import MAX_BYTES, MAX_PIXELS, MAX_TOTAL, Reader, check_total
from nodes.threads import Threaded

__all__ = ["Orientation", "Turn", "TurnLine"]

_SHORT_SIDE, _CENTRE = 256, 224
# ImageNet's mean and deviation by colour: what the model, a PP-LCNet of PaddleClas, was trained with.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

# OpenCV would else start a thread a core for every resize, beside those that `workers` and `threads` allow.
cv2.setNumThreads(0)


class Orientation(Threaded, Preprocess):
    """A page as what the orientation model of PaddleOCR (PP-LCNet, `x: FP32[rows, 3, 224, 224]`) takes.

    The short side to 256, the 224x224 in the middle, colours by ImageNet's mean and deviation. The model answers with
    the probabilities that the page was turned clockwise by 0, 90, 180 or 270 degrees.

    Args:
        max_bytes: The largest file, in bytes.
        max_pixels: The largest page, in pixels.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or Pillow is not installed.
    """

    signature = Signature.parse("image: BYTES[rows] -> x: FP32[rows, 3, 224, 224]")

    def __init__(self, *, max_bytes: Size = MAX_BYTES, max_pixels: int = MAX_PIXELS, workers: int = 1) -> None:
        super().__init__(workers, "orientation")
        self._reader = Reader("Orientation", "image", max_bytes=max_bytes, max_pixels=max_pixels)

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["image"].tolist()
        return Tensors({"x": await self.in_thread(lambda: self._prepare(files))})

    def _prepare(self, files: list[bytes]) -> Array:
        x = np.empty((len(files), 3, _CENTRE, _CENTRE), np.float32)
        for row, data in enumerate(files):
            pixels = self._reader.rgb(row, self._reader.open(row, data))
            x[row] = ((_middle(pixels) / np.float32(255) - _MEAN) / _DEVIATION).transpose(2, 0, 1)
        return x


def _middle(pixels: Array) -> Array:
    # The square in the middle first: what is resized stays small, however long the page is.
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = cv2.resize(pixels[top : top + side, left : left + side], (_SHORT_SIDE, _SHORT_SIDE))
    edge = (_SHORT_SIDE - _CENTRE) // 2
    return square[edge : edge + _CENTRE, edge : edge + _CENTRE]


class Turn(Threaded, Preprocess):
    """Turns a page back, by the orientation model's scores: counter-clockwise by 0, 90, 180 or 270 degrees.

    A page whose best score is the first stays the file it is. Any other becomes a PNG, bit for bit the turned pixels in
    the colours they had (other than RGB, grey and palette become RGB).

    Args:
        max_bytes: The largest file, in bytes.
        max_pixels: The largest page, in pixels.
        max_total: The most that one call turns, in bytes of pixels, all rows together.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or Pillow is not installed.
    """

    signature = Signature.parse("image: BYTES[rows], scores: FP32[rows, 4] -> image: BYTES[rows]")

    def __init__(
        self,
        *,
        max_bytes: Size = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_total: Size = MAX_TOTAL,
        workers: int = 1,
    ) -> None:
        super().__init__(workers, "turn")
        self._reader = Reader("Turn", "image", max_bytes=max_bytes, max_pixels=max_pixels)
        self._max_total = _at_least_1("max_total", max_total)

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["image"].tolist()
        quarters: list[int] = inputs["scores"].argmax(axis=1).tolist()
        return Tensors({"image": await self.in_thread(lambda: _turned(self._reader, files, quarters, self._max_total))})


class TurnLine(Threaded, Preprocess):
    """Turns the picture of a line upside down: by 180 degrees. Gives PNG.

    Args:
        max_bytes: The largest file, in bytes.
        max_pixels: The largest line, in pixels.
        max_total: The most that one call turns, in bytes of pixels, all rows together.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or Pillow is not installed.
    """

    signature = Signature.parse("line: BYTES[rows] -> line: BYTES[rows]")

    def __init__(
        self,
        *,
        max_bytes: Size = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_total: Size = MAX_TOTAL,
        workers: int = 1,
    ) -> None:
        super().__init__(workers, "turn-line")
        self._reader = Reader("TurnLine", "line", max_bytes=max_bytes, max_pixels=max_pixels)
        self._max_total = _at_least_1("max_total", max_total)

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["line"].tolist()
        half = [2] * len(files)
        return Tensors({"line": await self.in_thread(lambda: _turned(self._reader, files, half, self._max_total))})


def _turned(reader: Reader, files: list[bytes], quarters: list[int], max_total: int) -> Array:
    out = np.empty(len(files), object)
    total = 0
    for row, (data, count) in enumerate(zip(files, quarters, strict=True)):
        image = reader.open(row, data)
        total += image.width * image.height * 3
        check_total(total, max_total, "the pictures so far", reader.tensor)
        out[row] = reader.turned(row, image, count) if count else data
    return out


def _at_least_1(name: str, value: int) -> int:
    if value < 1:
        raise SetupError(f"{name} is {value}: it has to be at least 1")
    return value
