"""No row is ever given another row's answer: requests that are made to be mistaken for each other, by the million.

`MESH_WRONG_HITS=10000000 pytest tests/unit/caches/test_wrong_hits.py` asks ten million rows.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mesh.caches import Entry, KeySpec, RowKeys, Trust, encode_rows, read_rows
from mesh.caches.memory import MemoryBackend
from mesh.context import Parameter
from mesh.tensors import Array, Tensors

ROWS = int(os.environ.get("MESH_WRONG_HITS", "1000000"))
"""Rows that are asked for in all."""
BATCH = 50
BATCHES_OF_A_KIND = 500
"""With the same few models, settings and kinds of tensors, so that rows come again."""

SHAPES = [(4,), (2, 2), (4, 1), (1, 4), (2,), (1, 2), ()]
DATATYPES = [np.float32, np.int32, np.uint32, np.uint8, np.float16, np.int64]
NAMES = [("a", "bc"), ("ab", "c"), ("a", "b"), ("b", "a"), ("abc",), ("a",)]
PARAMETERS: list[dict[str, Parameter]] = [{}, {"p": 1}, {"p": True}, {"p": "1"}, {"p": 1.0}, {"q": 1}]
OUTPUTS: list[tuple[str, ...]] = [(), ("x",), ("y",), ("x", "y"), ("y", "x"), ("xy",)]
TEXTS = [b"", b"a", b"b", b"ab", b"ba", b"\0", b"\1\0\0\0\0\0\0\0a", b"\0\0\0\0\0\0\0\0"]


def nodes(trust: Trust) -> list[KeySpec]:
    """Models that are swapped, and nodes whose settings read alike when they are run together."""
    said = [
        {"uses": "m:Ab", "version": "c"},
        {"uses": "m:A", "version": "bc"},
        {"uses": "m:A", "version": "b"},
        {"uses": "m:A", "model_digest": b"b"},
        {"uses": "m:A", "model_digest": b"c"},
        {"uses": "m:A", "arguments": {"b": 1}},
        {"uses": "m:A", "arguments": {"b": True}},
        {"uses": "m:A", "arguments": {"b": "1"}},
    ]
    return [KeySpec(**one, parameters=("p",), trust=trust) for one in said]  # type: ignore[arg-type]


Kind = tuple[tuple[int, ...], Any]
"""Shape of a row and datatype, None for BYTES."""


def kinds_of(rng: random.Random) -> dict[str, Kind]:
    return {
        name: (rng.choice(SHAPES), None if rng.random() < 0.2 else np.dtype(rng.choice(DATATYPES)))
        for name in rng.choice(NAMES)
    }


def tensor(rng: np.random.Generator, kind: Kind) -> Array:
    """Few values, so that the same bytes come again as other numbers, in other shapes."""
    shape, dtype = kind
    elements = math.prod(shape)
    if dtype is None:
        made = np.empty(BATCH * elements, dtype=object)
        made[:] = [TEXTS[number] for number in rng.integers(0, len(TEXTS), BATCH * elements)]
        return made.reshape(BATCH, *shape)
    rows = np.zeros((BATCH, elements * dtype.itemsize), np.uint8)
    rows[:, 0] = rng.integers(0, 2, BATCH)
    rows[:, -1] |= rng.integers(0, 2, BATCH, dtype=np.uint8)
    return rows.view(dtype).reshape(BATCH, *shape)


def identities(node: int, asked: Tensors, outputs: Sequence[str], told: object) -> list[tuple[object, ...]]:
    """What each row is, in full: equal only where the answer has to be."""
    head = (node, tuple(sorted(outputs)), repr(told))
    kinds = tuple((name, asked[name].dtype.str, asked[name].shape[1:]) for name in sorted(asked))
    columns: list[list[object]] = []
    for name in sorted(asked):
        array = asked[name]
        if array.dtype.hasobject:
            columns.append([tuple(row.ravel().tolist()) for row in np.asarray(array).reshape(BATCH, -1)])
        else:
            data, size = array.tobytes(), array.nbytes // BATCH
            columns.append([data[start : start + size] for start in range(0, len(data), size)])
    return [(head, kinds, row) for row in zip(*columns, strict=True)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trust", ["private", "shared"])
async def test_no_hit_is_wrong_among_a_million_rows_made_to_be_mistaken(trust: Trust) -> None:
    rng, numbers = random.Random(4), np.random.default_rng(4)
    every = [RowKeys(spec) for spec in nodes(trust)]
    cache = MemoryBackend(max_bytes=32 << 20)
    known: dict[tuple[object, ...], int] = {}
    numbered = itertools.count()
    hits = asked = 0
    while asked < ROWS // 2:
        if len(known) > 1_000_000:  # far more than the cache holds: for the long run's memory
            known.clear()
            await cache.forget()
        makers = rng.sample(range(len(every)), 3)
        parameters = rng.sample(PARAMETERS, 3)
        outputs = rng.sample(OUTPUTS, 2)
        kinds = [kinds_of(rng) for _ in range(8)]
        # Kinds that only differ in one datatype, shape or name.
        kinds += [dict(zip(rng.choice(NAMES), kind.values(), strict=False)) for kind in kinds]
        for _ in range(BATCHES_OF_A_KIND):
            node, told, wanted = rng.choice(makers), rng.choice(parameters), rng.choice(outputs)
            request = Tensors({name: tensor(numbers, kind) for name, kind in rng.choice(kinds).items()})
            keys = every[node].digest_rows(request, parameters=told, outputs=wanted)
            counted = {name: value for name, value in told.items() if name == "p"}
            right = [known.setdefault(row, next(numbered)) for row in identities(node, request, wanted, counted)]
            found = read_rows(keys, (await cache.get_many("node", keys)).values)
            assert (found.broken, found.misfits) == (0, 0)
            if found.tensors is not None:
                answered: list[int] = found.tensors["answer"].tolist()
                assert answered == [right[row] for row in found.rows]
                hits += len(answered)
            values = encode_rows(keys, Tensors({"answer": np.array(right)}))
            await cache.put_many("node", [Entry(key, value) for key, value in zip(keys, values, strict=True)])
            asked += BATCH
    # Rows do come again, and are found.
    assert hits > asked // 3
    assert len(known) > 10_000
