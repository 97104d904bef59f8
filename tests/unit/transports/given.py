"""Strategies: arrays and tensors of every datatype, shape and layout in memory."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from mesh.tensors import DATATYPES, Array, Tensors

__all__ = ["arrays", "names", "tensors"]

names = st.text(min_size=1, max_size=128)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def _plain(array: Array) -> Array:
    return array


def _reversed(array: Array) -> Array:
    return array[::-1] if array.ndim else array


def _transposed(array: Array) -> Array:
    return array.T


def _strided(array: Array) -> Array:
    return np.repeat(array, 2, axis=array.ndim - 1)[..., ::2] if array.ndim else array


def _foreign(array: Array) -> Array:
    return array if array.dtype.hasobject or array.dtype.kind == "V" else array.astype(array.dtype.newbyteorder(">"))


LAYOUTS = [_plain, _reversed, _transposed, _strided, _foreign]


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Any bits of any datatype: NaNs and subnormals as well."""
    datatype = DATATYPES[draw(st.sampled_from(sorted(DATATYPES)))]
    shape = draw(shapes)
    count = math.prod(shape)
    array: Array
    if datatype.itemsize == 0:
        array = np.empty(count, dtype=object)
        array[:] = draw(st.lists(st.binary(max_size=12), min_size=count, max_size=count))
    else:
        size = count * datatype.itemsize
        bits = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
        array = (bits & 1 if datatype.name == "BOOL" else bits).view(datatype.dtype)
    return draw(st.sampled_from(LAYOUTS))(array.reshape(shape))


tensors: st.SearchStrategy[Tensors] = st.dictionaries(names, arrays(), max_size=4).map(Tensors)
