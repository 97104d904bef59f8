"""Finding the lines on a page, and reading them. Needs Pillow and OpenCV (`pip install inference-mesh[examples]`).

Models: PaddleOCR's detector and recogniser (PP-OCRv6 small; Apache-2.0). A line on an edge is a PNG file, one BYTES a
row, because lines differ in width. Pages and lines are run one at a time: in a batch all would have to be padded to the
largest, which on a processor costs more than batching gains, and would let one row change another's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import cv2
import numpy as np

from mesh import Array, Context, ModelFile, Predict, SetupError, Signature, Size, Tensors
from nodes.ocr_boxes import MAX_SIDE, boxes_of, cut_out, detector_input, in_reading_order, size_of
from nodes.ocr_ctc import decode
from nodes.onnx_session import OwnModel, Run
from nodes.picture import MAX_BYTES, MAX_PIXELS, Reader, check_total
from nodes.text import as_bytes

__all__ = ["FindLines", "ReadLines"]

_HEIGHT = 48
"""Pixels that the recogniser was trained to see a line at."""
_NARROWEST = 320
"""Pixels to which shorter lines are padded."""
_WIDEST = 3200
"""Pixels to which longer lines are squeezed: 400 steps of 18,710 classes, or 30 MB of scores."""
_LARGEST_LINE = 1 << 22


class FindLines(Predict):
    """The lines on each page, from top to bottom, one row each, with the page it came from as its source.

    A line is cut out level; where it runs up or down it is laid on its side. A page without text gives no row.
    `box` holds x and y of the corners in the page's pixels, clockwise from the top left.

    Args:
        model: The detector, `x: FP32[1, 3, h, w]` to probabilities of the same size.
        shortest: The page is made larger until its short side has so many pixels.
        longest: Pages whose long side has more pixels are made smaller, for the detector's eyes only.
        max_lines: The most lines on one page.
        max_bytes: The largest file, in bytes.
        max_pixels: The largest page, in pixels; no side may be over 16,384.
        max_total: The most that one call cuts out, in bytes of pixels, all lines together.
        providers: onnxruntime execution providers, best first. One that cannot be set up is an error, never replaced.
        threads: Threads that onnxruntime uses inside one run.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or Pillow is not installed.
    """

    signature = Signature.parse("image: BYTES[rows] -> line: BYTES[rows], box: FP32[rows, 4, 2]")
    expands: ClassVar[bool] = True

    def __init__(
        self,
        *,
        model: ModelFile,
        shortest: int = 320,
        longest: int = 1280,
        max_lines: int = 1000,
        max_bytes: Size = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_total: Size = 64 << 20,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        workers: int = 1,
    ) -> None:
        self._reader = Reader("FindLines", "image", max_bytes=max_bytes, max_pixels=max_pixels)
        if not 32 <= shortest <= longest <= MAX_SIDE:
            raise SetupError(f"shortest is {shortest}, longest {longest}: 32 <= shortest <= longest <= {MAX_SIDE}")
        for name, value in (("max_lines", max_lines), ("max_total", max_total)):
            if value < 1:
                raise SetupError(f"{name} is {value}: it has to be at least 1")
        self._shortest, self._longest = shortest, longest
        self._max_lines, self._max_total = max_lines, max_total
        self._model = OwnModel(model, ["x"], providers=providers, threads=threads, workers=workers)

    def digest(self) -> str:
        return self._model.digest()

    async def __aenter__(self) -> Self:
        blank = np.zeros((1, 1, 3), np.uint8)
        await self._model.open(lambda run: self._boxes(blank, run))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._model.close()

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["image"].tolist()
        return await self._model.run(lambda run: self._find(files, run))

    def _find(self, files: list[bytes], run: Run) -> Tensors:
        lines: list[bytes] = []
        boxes = [np.empty((0, 4, 2), np.float32)]
        sources: list[int] = []
        total = 0
        for row, data in enumerate(files):
            pixels = self._page(row, data)
            found = self._boxes(pixels, run)
            if len(found) > self._max_lines:
                raise self._reader.wrong(row, f"{len(found)} lines; at most {self._max_lines} are looked for")
            for box in found:
                height, width = size_of(box)
                total += height * width * 3
                check_total(total, self._max_total, "the lines so far", "image")
                lines.append(self._reader.png(cut_out(pixels, box)))
            boxes.append(found)
            sources += [row] * len(found)
        files_of_lines = np.array([*lines, None], object)[:-1]
        return Tensors({"line": files_of_lines, "box": np.concatenate(boxes)}, sources=sources)

    def _page(self, row: int, data: bytes) -> Array:
        image = self._reader.open(row, data)
        if max(image.size) > MAX_SIDE:
            raise self._reader.wrong(row, f"{image.height}x{image.width} pixels; no side may be over {MAX_SIDE}")
        return self._reader.rgb(row, image)

    def _boxes(self, pixels: Array, run: Run) -> Array:
        heat = run({"x": detector_input(pixels, self._shortest, self._longest)})[0, 0]
        boxes = boxes_of(heat, *pixels.shape[:2])
        return boxes[in_reading_order(boxes)]


class ReadLines(Predict):
    """The text of each line, and how sure that is.

    The model's own answer, 18,710 scores for every eight pixels of width (7.7 MB for a line of 827), is decoded here
    and goes nowhere. A line where nothing was seen is the empty text with score 0. Lines over 66 times as wide as high
    are squeezed.

    Args:
        model: The recogniser, `x: FP32[1, 3, 48, w]` to scores `FP32[1, steps, classes]`; the characters of its classes
            stand in the model itself, under `character`.
        max_bytes: The largest file, in bytes.
        max_pixels: The largest line, in pixels.
        providers: onnxruntime execution providers, best first. One that cannot be set up is an error, never replaced.
        threads: Threads that onnxruntime uses inside one run.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or Pillow is not installed.
    """

    signature = Signature.parse("line: BYTES[rows] -> text: BYTES[rows], score: FP32[rows]")

    def __init__(
        self,
        *,
        model: ModelFile,
        max_bytes: Size = MAX_BYTES,
        max_pixels: int = _LARGEST_LINE,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        workers: int = 1,
    ) -> None:
        self._reader = Reader("ReadLines", "line", max_bytes=max_bytes, max_pixels=max_pixels)
        self._model = OwnModel(model, ["x"], providers=providers, threads=threads, workers=workers)
        self._path = model
        self._characters: Sequence[str] = ()

    def digest(self) -> str:
        return self._model.digest()

    async def __aenter__(self) -> Self:
        await self._model.open(self._learn_characters)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._model.close()

    def _learn_characters(self, run: Run) -> None:
        # Class 0 stands for no character, and the last one, which the model leaves out, for a space.
        known = self._model.session.get_modelmeta().custom_metadata_map.get("character")
        self._characters = ("", *(known or "").split("\n"), " ")
        classes = run({"x": _strip(np.zeros((1, 1, 3), np.uint8))}).shape[2]
        if known is None or len(self._characters) != classes:
            raise SetupError(
                f"{self._path}: {classes} classes, and {'no' if known is None else len(self._characters)} characters "
                "for them under `character` in its metadata"
            )

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["line"].tolist()
        texts, scores = await self._model.run(lambda run: self._read(files, run))
        return Tensors({"text": as_bytes(texts, (len(texts),)), "score": np.array(scores, np.float32)})

    def _read(self, files: list[bytes], run: Run) -> tuple[list[str], list[float]]:
        texts: list[str] = []
        scores: list[float] = []
        for row, data in enumerate(files):
            pixels = self._reader.rgb(row, self._reader.open(row, data))
            text, score = decode(run({"x": _strip(pixels)})[0], self._characters)
            texts.append(text)
            scores.append(score)
        return texts, scores


def _strip(pixels: Array) -> Array:
    """UINT8[h, w, 3], RGB, to FP32[1, 3, 48, W], BGR, from -1 to 1; zeros to the right of a short line."""
    height, width = pixels.shape[:2]
    wide = min(_WIDEST, -(-width * _HEIGHT // height))
    strip = np.zeros((1, 3, _HEIGHT, max(_NARROWEST, wide)), np.float32)
    resized = cv2.resize(pixels, (wide, _HEIGHT))[:, :, ::-1].astype(np.float32)
    strip[0, :, :, :wide] = (resized / 127.5 - 1).transpose(2, 0, 1)
    return strip
