"""Digests of large rows by themselves, which stand for the rows in keys.

A row of an input that takes `LARGE` bytes or more is digested without the head of any node, and the digest takes its
place. So what one node has hashed need not be hashed by the next: digests are remembered beside their array for as long
as the request runs. Nobody outside has a say in them, and they cross no link.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash
from blake3 import blake3

from mesh.context import Digests
from mesh.tensors import Array

__all__ = ["LARGE", "large_rows"]

LARGE = 64 << 10
"""Bytes of a row. Below, hashing again costs little more than remembering. Keys depend on it."""
_LENGTH = struct.Struct("<Q")
_BY_TRUST: dict[str, Callable[..., Any]] = {"private": xxhash.xxh3_128, "shared": blake3}


def large_rows(array: Array, trust: str, remembered: Digests | None) -> dict[int, bytes]:
    """By number, the digests of the large rows of an array: of fixed-size elements all, of BYTES those that are.

    Of rows of BYTES, what is digested has each element's length before it.

    Args:
        array: With an axis 0; not changed while the request runs.
        trust: `private` for xxh3-128, `shared` for BLAKE3.
        remembered: What the request remembers; looked into, and added to.
    """
    if remembered is None:
        return _digested(array, trust)
    # The array is held as well: while it lives, no other has its identity.
    known = remembered.get((id(array), trust))
    if known is None:
        known = remembered[id(array), trust] = array, _digested(array, trust)
    return known[1]


def _digested(array: Array, trust: str) -> dict[int, bytes]:
    begin = _BY_TRUST[trust]
    found: dict[int, bytes] = {}
    if not array.dtype.hasobject:
        for number, row in enumerate(np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)):
            found[number] = begin(row.data).digest()
        return found
    rows: Sequence[Sequence[bytes]] = array.reshape(len(array), -1).tolist()
    for number, items in enumerate(rows):
        if sum(map(len, items)) + _LENGTH.size * len(items) < LARGE:
            continue
        hashed = begin()
        for item in items:
            hashed.update(_LENGTH.pack(len(item)))
            hashed.update(item)
        found[number] = hashed.digest()
    return found
