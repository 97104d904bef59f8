"""Before and after Magika's file type model: bytes of a file to features, scores to a name."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import numpy as np

from mesh import Array, Context, InvalidInput, ModelFile, Preprocess, SetupError, Signature, Tensors, TensorSpec
from nodes.text import as_bytes

__all__ = ["Features", "Label"]

BLOCK = 4096
"""Bytes that are looked at from each end of a file."""
WIDTH = 1024
"""Numbers that are made of each end."""
PADDING = 256
SHORTEST = 8
"""Bytes, after leading white space, without which the model has nothing to go by."""
_INLINE_ROWS = 16
"""Fewer rows than that are done sooner than a thread begins (about 4 microseconds each)."""
_MAX_LABELS_BYTES = 1 << 20


class Features(Preprocess):
    """The two ends of a file as the 2,048 numbers that Magika's model (standard_v3_3) takes.

    The first 4,096 bytes without leading white space give the first 1,024 numbers, padded on the right; the last 4,096
    without trailing white space the other 1,024, padded on the left. Padding is 256. A file that has less than 8 bytes
    left is refused: the model was never shown one.
    """

    signature = Signature.parse("file: BYTES[rows] -> bytes: INT32[rows, 2048]")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["file"].tolist()
        rows = _features(files) if len(files) < _INLINE_ROWS else await asyncio.to_thread(_features, files)
        return Tensors({"bytes": rows})


def _features(files: list[bytes]) -> Array:
    rows = np.full((len(files), 2 * WIDTH), PADDING, np.int32)
    for row, data in enumerate(files):
        head = data[:BLOCK].lstrip()[:WIDTH]
        tail = data[-BLOCK:].rstrip()[-WIDTH:]
        if len(head) < SHORTEST:
            raise InvalidInput(
                f"tensor 'file': {len(data)} bytes, of which {len(head)} after leading white space; "
                f"the type of a file can be told from {SHORTEST} on",
                tensor="file",
                row=row,
            )
        rows[row, : len(head)] = np.frombuffer(head, np.uint8)
        rows[row, 2 * WIDTH - len(tail) :] = np.frombuffer(tail, np.uint8)
    return rows


class Label(Preprocess):
    """The name and the score of the best class.

    Args:
        labels: A JSON file with the names under `target_labels_space`, in the order of the scores; at most 1 MiB.

    Raises:
        SetupError: The file is missing, too large, or holds no such list.
    """

    def __init__(self, *, labels: ModelFile) -> None:
        data = _read(labels)
        self._labels = _names(labels, data)
        self._digest = hashlib.sha256(data).hexdigest()
        scores = TensorSpec("FP32", ("rows", len(self._labels)))
        self.signature = Signature(
            {"scores": scores}, {"label": TensorSpec("BYTES", ("rows",)), "score": TensorSpec("FP32", ("rows",))}
        )

    def digest(self) -> str:
        return self._digest

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        scores = inputs["scores"]
        best = scores.argmax(axis=1)
        labels = as_bytes([self._labels[index] for index in best.tolist()], best.shape)
        return Tensors({"label": labels, "score": scores[np.arange(len(best)), best]})


def _read(path: ModelFile) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_LABELS_BYTES:
        raise SetupError(f"{path}: larger than {_MAX_LABELS_BYTES} bytes; labels are a short JSON file")
    return data


def _names(path: ModelFile, data: bytes) -> list[str]:
    try:
        found: Any = json.loads(data)
    except ValueError as error:
        raise SetupError(f"{path}: not JSON: {error}") from error
    names: Any = found.get("target_labels_space") if isinstance(found, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise SetupError(f"{path}: holds no list of names under `target_labels_space`")
    return list(names)
