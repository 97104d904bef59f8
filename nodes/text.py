"""Text as BYTES in UTF-8."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from mesh import Array, Context, InvalidInput, Preprocess, Signature, Tensors

__all__ = ["Lowercase", "as_bytes", "as_text"]

_INLINE_BYTES = 1 << 16
"""Less text than that is done sooner than a thread begins (about 50 microseconds)."""


def as_text(name: str, array: Array) -> list[str]:
    """The elements of a BYTES tensor, decoded, in C order.

    Raises:
        InvalidInput: An element is not UTF-8; names the tensor and the row.
    """
    texts: list[str] = []
    for item in array.ravel().tolist():
        try:
            texts.append(item.decode())
        except UnicodeDecodeError as error:
            row = len(texts) * len(array) // array.size
            text = f"tensor {name!r}: byte {error.start} is not UTF-8"
            raise InvalidInput(text, tensor=name, row=row) from None
    return texts


def as_bytes(texts: Sequence[str], shape: tuple[int, ...]) -> Array:
    """A BYTES tensor of the texts in UTF-8."""
    array = np.empty(len(texts), dtype=object)
    for index, text in enumerate(texts):
        array[index] = text.encode()
    return array.reshape(shape)


class Lowercase(Preprocess):
    """Text to lower case, by Unicode's rules without those of any one language. Takes and gives UTF-8."""

    signature = Signature.parse("text: BYTES[rows, ...] -> text: BYTES[rows, ...]")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        text = inputs["text"]
        small = sum(map(len, text.ravel().tolist())) < _INLINE_BYTES
        return Tensors({"text": _lower(text) if small else await asyncio.to_thread(_lower, text)})


def _lower(text: Array) -> Array:
    return as_bytes([item.lower() for item in as_text("text", text)], text.shape)
