"""Values: what a node answered for one row, as bytes that say what they are.

| bytes | content |
|---|---|
| 0 | version: 1 |
| 1 | kind: 1 tensors, 2 error |
| 2 | 1 where the node said which row of its input made each row of its answer, else 0 |
| 3 | 0 |
| 4-7 | length of the head |
| 8-23 | the first 16 bytes of the key |
| 24- | the head (see `mesh.caches.layouts`), then the tensors' elements |
| last 8 | xxh3-64 over everything before |

So a value that is cut off, changed, of another version, written by somebody else or found under another key is seen to
be so, and is a miss: no function here that reads raises for what it reads. The checksum is against accidents; who can
write to the backend can write answers.

Numbers are little-endian, and elements stand as they do on the wire. Fixed-size elements begin at multiples of eight
bytes, so a single value is read without a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import xxhash

from mesh.caches.assembly import fits
from mesh.caches.layouts import Layout, layout_of, read_layout, write_head
from mesh.errors import InvalidInput, RequestError
from mesh.tensors import Array, Tensors

__all__ = ["VALUE_OVERHEAD", "Hits", "encode_error", "encode_rows", "read_answer", "read_rows"]

_VERSION = 1
_TENSORS, _ERROR = 1, 2
_FIXED = struct.Struct("<BBBBI16s")
_START = _FIXED.size
_KEY = slice(8, 24)
_CHECK = 8
_COPIED = 8192
"""Values up to so many bytes are copied to be looked at: cheaper than a view of them."""
VALUE_OVERHEAD = _START + _CHECK
"""Bytes of a value beside its head and its elements."""
_TEXT = struct.Struct("<I")


@dataclass(slots=True)
class Hits:
    """What of the values asked for can be used."""

    rows: list[int] = field(default_factory=list[int])
    """The places, from 0, of the values that hold tensors; rising."""
    tensors: Tensors | None = None
    """Their tensors, one row after another, read-only; None where there are none. Where a node told sources, they count
    the places among `rows`."""
    errors: dict[int, RequestError] = field(default_factory=dict[int, RequestError])
    """By place, the errors that were kept."""
    broken: int = 0
    """Values that were there and could not be read."""
    misfits: int = 0
    """Values that could be read, and not be put together with the first: other names, datatypes or shapes."""


def encode_rows(keys: Sequence[bytes], answer: Tensors) -> list[bytes]:
    """One value a key.

    Args:
        keys: Digests of at least 16 bytes: those of the rows that were asked.
        answer: What the node answered. Without sources, one row a key; with them, those of row i go to key i, which may
            be none.

    Raises:
        InvalidInput: The answer's rows are not as many as the keys.
    """
    if answer.sources is None:
        if answer.rows != len(keys) and len(answer):
            raise InvalidInput(f"an answer of {answer.rows} rows for {len(keys)} keys")
        bounds = range(len(keys) + 1)
    else:
        bounds = np.searchsorted(answer.sources, np.arange(len(keys) + 1)).tolist()
        if bounds[-1] != len(answer.sources):
            raise InvalidInput(f"an answer to row {int(answer.sources[-1])} of {len(keys)}")
    told = int(answer.sources is not None)
    heads: dict[int, bytes] = {}
    layouts: dict[int, Layout] = {}
    values: list[bytes] = []
    for place, key in enumerate(keys):
        start, stop = bounds[place], bounds[place + 1]
        count = stop - start
        if count not in heads:
            heads[count] = write_head(answer, count)
            layouts[count] = layout_of(heads[count])
        head = heads[count]
        fixed = _FIXED.pack(_VERSION, _TENSORS, told, 0, len(head), key)
        values.append(_sealed(b"".join((fixed, head, *layouts[count].write(answer, start, stop)))))
    return values


def encode_error(key: bytes, error: InvalidInput) -> bytes:
    """A value that says that the node does not take this row."""
    texts = [text.encode(errors="replace") for text in (error.text, error.node, error.tensor)]
    body = b"".join([part for text in texts for part in (_TEXT.pack(len(text)), text)])
    return _sealed(_FIXED.pack(_VERSION, _ERROR, 0, 0, 0, key) + body)


def read_answer(keys: Sequence[bytes], values: Sequence[bytes]) -> Tensors | None:
    """The tensors of values all of which can be used; None where some cannot. Never raises."""
    if len(keys) == 1 and (tensors := _read_one(keys[0], values[0])) is not None:
        return tensors
    hits = read_rows(keys, values)
    return hits.tensors if len(hits.rows) == len(keys) else None


def _read_one(key: bytes, value: bytes) -> Tensors | None:
    """The tensors of one value, the commonest case; None where it is none that can be read so."""
    if type(value) is not bytes or not VALUE_OVERHEAD <= len(value) < _COPIED:
        return None
    if value[:4] != b"\1\1\0\0" or value[_KEY] != key[:16] or xxhash.xxh3_64_digest(value[:-_CHECK]) != value[-_CHECK:]:
        return None
    start = _START + int.from_bytes(value[4:8], "little")
    layout = read_layout(value[_START:start], 0)
    arrays = None if layout is None else layout.read_plain(value, start, _CHECK)
    return None if arrays is None else Tensors.trusted(arrays)


def read_rows(keys: Sequence[bytes], values: Sequence[bytes | None]) -> Hits:
    """Read what a backend gave for `keys`. Never raises: what cannot be read is a miss, and counted."""
    hits = Hits()
    if (head := _common_head(keys, values)) is not None:
        hits.rows = list(range(len(keys)))
        _read_alike(head, cast("list[bytes]", values), hits)
        return hits
    found: list[bytes] = []
    heads: set[bytes] = set()
    digest = xxhash.xxh3_64_digest
    for place, (key, value) in enumerate(zip(keys, values, strict=False)):
        if value is None:
            continue
        if (
            type(value) is not bytes
            or value[_KEY] != key[:16]
            or digest(value[:-_CHECK] if len(value) < _COPIED else memoryview(value)[:-_CHECK]) != value[-_CHECK:]
            or len(value) < VALUE_OVERHEAD
        ):
            hits.broken += 1
        elif value[:2] == b"\1\1":
            start = _START + int.from_bytes(value[4:8], "little")
            heads.add(value[:8] + value[_START:start])
            hits.rows.append(place)
            found.append(value)
        else:
            _read_error(place, value, hits)
    if not found:
        return hits
    if len(heads) == 1:
        _read_alike(heads.pop(), found, hits)
    else:
        _read_apart(found, hits)
    return hits


def _common_head(keys: Sequence[bytes], values: Sequence[bytes | None]) -> bytes | None:
    """The head of many values of tensors that are whole, of these keys and alike: most often, all are.

    None where they are not, or it would cost more to see here than one by one.
    """
    first = values[0] if len(values) == len(keys) > 1 else None
    if first is None or not VALUE_OVERHEAD <= len(first) < _COPIED or first[:2] != b"\1\1":
        return None
    length, start = len(first), _START + int.from_bytes(first[4:8], "little")
    whole = [value for value in values if type(value) is bytes and len(value) == length]
    if len(whole) < len(keys):
        return None
    digest = xxhash.xxh3_64_digest
    grid = np.frombuffer(b"".join(whole), np.uint8).reshape(len(whole), length)
    same = (
        grid[:, :8].tobytes() == first[:8] * len(whole)
        and grid[:, _START:start].tobytes() == first[_START:start] * len(whole)
        and grid[:, _KEY].tobytes() == b"".join([key[:16] for key in keys])
        and grid[:, -_CHECK:].tobytes() == b"".join([digest(value[:-_CHECK]) for value in whole])
    )
    return first[:8] + first[_START:start] if same else None


def _read_alike(head: bytes, values: list[bytes], hits: Hits) -> None:
    """All values have the same head: their elements are taken out in one go."""
    if not values:
        return
    layout = None if head[2] > 1 or head[3] else read_layout(head[8:], head[2])
    if layout is None:
        _drop(hits, set(range(len(values))))
        return
    start = _START + len(head) - 8
    arrays, bad = layout.read(values, start, _CHECK)
    if bad:
        _drop(hits, bad)
        _read_alike(head, [value for place, value in enumerate(values) if place not in bad], hits)
        return
    sources = None
    if head[2]:
        sources = np.repeat(np.arange(len(values)), layout.rows)
        sources.flags.writeable = False
    hits.tensors = Tensors.trusted(arrays, sources)


def _read_apart(values: list[bytes], hits: Hits) -> None:
    """Heads differ, in the number of rows or in more: one value after another."""
    parts: list[Tensors] = []
    dropped: set[int] = set()
    for place, value in enumerate(values):
        one = Hits(rows=[0])
        start = _START + int.from_bytes(value[4:8], "little")
        _read_alike(value[:8] + value[_START:start], [value], one)
        hits.broken += one.broken
        if one.tensors is None:
            dropped.add(place)
        elif parts and not fits(parts[0], one.tensors):
            hits.misfits += 1
            dropped.add(place)
        else:
            parts.append(one.tensors)
    hits.rows = [row for place, row in enumerate(hits.rows) if place not in dropped]
    if not parts:
        return
    arrays = {name: _read_only(np.concatenate([part[name] for part in parts])) for name in parts[0]}
    sources = None
    if parts[0].sources is not None:
        counts = [0 if part.sources is None else len(part.sources) for part in parts]
        sources = _read_only(np.repeat(np.arange(len(parts)), counts))
    hits.tensors = Tensors.trusted(arrays, sources)


def _drop(hits: Hits, places: set[int]) -> None:
    hits.broken += len(places)
    hits.rows = [row for place, row in enumerate(hits.rows) if place not in places]


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _read_error(place: int, value: bytes, hits: Hits) -> None:
    texts: list[str] = []
    position, end = _START, len(value) - _CHECK
    while position + _TEXT.size <= end:
        (length,) = _TEXT.unpack_from(value, position)
        position += _TEXT.size + length
        texts.append(value[position - length : position].decode(errors="replace"))
    if value[:8] != b"\1\2\0\0\0\0\0\0" or position != end or len(texts) != 3:
        hits.broken += 1
        return
    text, node, tensor = texts
    hits.errors[place] = InvalidInput(text, node=node, tensor=tensor)


def _sealed(content: bytes) -> bytes:
    return content + xxhash.xxh3_64_digest(content)
