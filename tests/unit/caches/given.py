"""Tensors of any kind, for property tests of caches."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mesh.tensors import DATATYPES, Array, Tensors

__all__ = ["answers", "batches", "bits"]

NAMES = st.text(string.ascii_letters + "é.:", min_size=1, max_size=6)


@st.composite
def arrays(draw: st.DrawFn, rows: int, datatypes: list[str] | None = None) -> Array:
    datatype = DATATYPES[draw(st.sampled_from(datatypes or list(DATATYPES)))]
    shape = (rows, *draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape))
    if datatype.name == "BYTES":
        items = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        flat = np.empty(count, dtype=object)
        flat[:] = items
        return flat.reshape(shape)
    size = count * datatype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    if datatype.name == "BOOL":
        content = bytes(byte % 2 for byte in content)
    made: Array = np.frombuffer(content, np.uint8).view(datatype.dtype) if count else np.empty(0, datatype.dtype)
    return made.reshape(shape)


@st.composite
def batches(draw: st.DrawFn, min_rows: int = 0, max_rows: int = 5) -> Tensors:
    """One row a row."""
    rows = draw(st.integers(min_rows, max_rows))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return Tensors({name: draw(arrays(rows)) for name in names})


@st.composite
def answers(draw: st.DrawFn, asked: int) -> Tensors:
    """Answers to so many rows: one each, or any number each, with their sources."""
    if draw(st.booleans()):
        return draw(batches(asked, asked))
    counts = draw(st.lists(st.integers(0, 3), min_size=asked, max_size=asked))
    sources = [row for row, count in enumerate(counts) for _ in range(count)]
    return Tensors(draw(batches(len(sources), len(sources))), sources=np.array(sources, dtype=np.int64))


def bits(tensors: Tensors) -> dict[str, Any]:
    """By name: datatype, shape and content, to compare by."""
    return {
        name: (array.dtype.name, array.shape, array.tolist() if array.dtype.hasobject else array.tobytes())
        for name, array in tensors.items()
    }
