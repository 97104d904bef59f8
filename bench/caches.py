"""(g) What a cache costs: a hit in memory, beside aiocache's own; many keys at once on Valkey, one by one; bytes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import aiocache
import numpy as np

from bench import cached_hop
from bench.measure import paired, paired_async
from mesh.caches import (
    BackendSettings,
    Entry,
    KeySpec,
    RowKeys,
    digest_rows,
    encode_rows,
    open_backend,
    read_rows,
)
from mesh.caches.memory import MemoryBackend
from mesh.context import Digests
from mesh.tensors import Tensors
from tests.harness.valkey import valkey

__all__ = ["run"]

WIDTH = 64
BATCH = 64
CALLS = {1: 2000, BATCH: 200}
ROUNDS = 9
INSERTS = 1_000_000
BOUND = 64 << 20
LONGEST = 4096
SPEC = KeySpec(uses="nodes.onnx:OnnxPredict", model_digest=b"m" * 32)


def answer(rows: int) -> Tensors:
    """As a classifier of ten classes gives it."""
    return Tensors({"label": np.arange(rows), "probabilities": np.full((rows, 10), 0.1, np.float32)})


async def run() -> dict[str, Any]:
    """Microseconds a row and a digest; 64 keys on a server; bytes as the allocator and the system count them."""
    return {
        "targets": {"hit_us_per_row": {"1": 25, str(BATCH): 5}, "multi_get_ms": 2.5, "gets_ratio": 10, "memory": 1.05},
        "hit": {str(rows): await hit(rows) for rows in (1, BATCH)},
        "gateway": await cached_hop.run(),
        "digest_us_per_row": digests(),
        "valkey": await server(),
        "memory": memory(),
    }


async def hit(rows: int) -> dict[str, Any]:
    """Digest, look up, decode; beside the usual way with aiocache: SHA-256, its memory cache, rows put together."""
    request = Tensors({"x": np.random.default_rng(1).random((rows, WIDTH), dtype=np.float32)})
    keys, cache = RowKeys(SPEC), MemoryBackend()
    names = keys.digest_rows(request)
    values = encode_rows(names, answer(rows))
    await cache.put_many("node", [Entry(key, value, 3600.0) for key, value in zip(names, values, strict=True)])
    theirs: Any = aiocache.SimpleMemoryCache()
    table, wanted = request["x"], answer(rows)
    for row in range(rows):
        name = hashlib.sha256(table[row].tobytes()).hexdigest()
        await theirs.set(name, {name: array[row] for name, array in wanted.items()}, ttl=3600)

    async def ours() -> int:
        for _ in range(CALLS[rows]):
            asked = keys.digest_rows(request)
            found = read_rows(asked, (await cache.get_many("node", asked)).values)
            assert len(found.rows) == rows
        return CALLS[rows] * rows

    async def plain() -> int:
        for _ in range(CALLS[rows]):
            asked = [hashlib.sha256(table[row].tobytes()).hexdigest() for row in range(rows)]
            found = await theirs.multi_get(asked)
            assert {name: np.stack([one[name] for one in found]) for name in wanted}
        return CALLS[rows] * rows

    measured = (await paired_async(ours, plain, rounds=ROUNDS)).to_json()
    await theirs.clear()
    return measured


def digests() -> dict[str, float]:
    """Keys alone."""
    small = Tensors({"x": np.random.default_rng(1).random((BATCH, WIDTH), dtype=np.float32)})
    large = Tensors({"x": np.random.default_rng(1).random((1, 3 << 18), dtype=np.float32)})
    private, shared = RowKeys(SPEC), RowKeys(KeySpec(uses=SPEC.uses, trust="shared"))
    digests: Digests = {}
    private.digest_rows(large, digests=digests)
    shared.digest_rows(large, digests=digests)
    found: dict[str, float] = {}
    for name, calls, rows, ours, other in (
        ("FP32[64], batch of 64", 200, BATCH, lambda: private.digest_rows(small), lambda: shared.digest_rows(small)),
        ("3 MiB", 50, 1, lambda: private.digest_rows(large), lambda: shared.digest_rows(large)),
    ):
        measured = paired(ours, other, calls=calls, rounds=ROUNDS)
        found[f"{name}, private"] = round(measured.ours_us / rows, 2)
        found[f"{name}, shared"] = round(measured.other_us / rows, 2)
    again = paired(
        lambda: private.digest_rows(large, digests=digests),
        lambda: shared.digest_rows(large, digests=digests),
        calls=50,
        rounds=ROUNDS,
    )
    found["3 MiB, for the next node, private"] = round(again.ours_us, 2)
    found["3 MiB, for the next node, shared"] = round(again.other_us, 2)
    return found


async def server() -> dict[str, Any]:
    """64 values of a classifier: at once, and one by one."""
    request = Tensors({"x": np.random.default_rng(1).random((BATCH, WIDTH), dtype=np.float32)})
    keys = digest_rows(SPEC, request)
    with valkey() as running:
        cache = open_backend(running.url, BackendSettings(timeout_s=5.0))
        values = encode_rows(keys, answer(BATCH))
        await cache.put_many("node", [Entry(key, value) for key, value in zip(keys, values, strict=True)])

        async def at_once() -> None:
            assert None not in (await cache.get_many("node", keys)).values

        async def one_by_one() -> None:
            for key in keys:
                assert (await cache.get_many("node", [key])).values != [None]

        gets = await paired_async(_times(at_once, 20), _times(one_by_one, 5), rounds=ROUNDS)
        await cache.close()
    return gets.to_json()


def _times(call: Callable[[], Awaitable[None]], times: int) -> Callable[[], Awaitable[int]]:
    async def repeated() -> int:
        for _ in range(times):
            await call()
        return times

    return repeated


def memory() -> dict[str, Any]:
    """The most that a bounded cache takes while a million values of any size are put, over its bound."""
    told, seconds, resident = _fill(traced=False)
    told_traced, _, traced = _fill(traced=True)
    return {
        "inserts": INSERTS,
        "bound_bytes": BOUND,
        "longest_value_bytes": LONGEST,
        "us_per_insert": round(seconds / INSERTS * 1e6, 2),
        "told_share": round(max(told, told_traced) / BOUND, 4),
        "allocated_share": round(traced / BOUND, 4),
        "resident_share": round(resident / BOUND, 4),
    }


def _fill(*, traced: bool) -> tuple[int, float, int]:
    """Bytes that it says it takes, at most; seconds; bytes that somebody else says it takes, at most."""
    rng = random.Random(1)
    blob = rng.randbytes(LONGEST * 2)
    places = [(rng.randrange(LONGEST), rng.randint(1, LONGEST)) for _ in range(10_007)]
    cache = MemoryBackend(max_bytes=BOUND)
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else _resident()
    told = most = 0
    began = time.perf_counter()
    for number in range(INSERTS):
        start, length = places[number % len(places)]
        put = cache.put_many("node", [Entry(number.to_bytes(16, "little"), blob[start : start + length], 60.0)])
        _at_once(put)
        if number % 1000 == 0:
            told = max(told, cache.nbytes)
            most = most if traced else max(most, _resident())
    seconds = time.perf_counter() - began
    if traced:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return told, seconds, most - before


def _at_once(call: Any) -> None:
    try:
        call.send(None)
    except StopIteration:
        return
    raise AssertionError("memory does not wait")


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(asyncio.run(run()))
