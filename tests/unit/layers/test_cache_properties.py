"""The `cache` layer under callers, cancellations, errors and time in any order.

However they fall: no row is computed twice at the same time, nobody is given another row's answer or another caller's
error, everybody is answered, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.caches import KeySpec
from mesh.caches.memory import MemoryBackend
from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, Overloaded, RequestError
from mesh.handler import Handler
from mesh.layers import Cache, CacheSite
from mesh.partial import rows_failed
from mesh.tensors import Tensors
from mesh.testing import ScriptedCall, settle
from tests.unit.layers.cached import Caching, HeldBackend, NearBackend
from tests.unit.layers.given import rows, values

BAD = 3.0
"""A row that is refused whenever it is computed."""
ROW = st.sampled_from([0.0, 1.0, 2.0, BAD, 4.0, 5.0])
BATCH = st.lists(ROW, min_size=1, max_size=5)
STEP = st.one_of(
    st.tuples(st.just("ask"), BATCH),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("answer"), st.integers(0, 20)),
    st.tuples(st.just("in part"), st.integers(0, 20)),
    st.tuples(st.just("overload"), st.integers(0, 20)),
    st.tuples(st.just("choke"), st.integers(0, 20)),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 4.0, 7.0, 20.0])),
    st.tuples(st.just("hold"), st.booleans()),
)
SETTINGS = st.sampled_from(
    [
        Cache(cache="hot"),
        Cache(cache="hot", ttl_s=5.0),
        Cache(cache="hot", ttl_s=5.0, stale_s=10.0, max_refreshes=2),
        Cache(cache="hot", ttl_s=5.0, negative_s=5.0),
    ]
)


@dataclass(slots=True)
class Story:
    """What happened so far."""

    asking: Caching
    asked: list[tuple[list[float], asyncio.Task[Tensors]]] = field(
        default_factory=list[tuple[list[float], "asyncio.Task[Tensors]"]]
    )
    cancelled: set[int] = field(default_factory=set[int])
    running: list[ScriptedCall] = field(default_factory=list[ScriptedCall])

    async def look(self) -> None:
        """Note what runs by now, and that no row does twice."""
        await settle()
        while self.asking.script.pending:
            self.running.append(await self.asking.script.request())
        self.running = [call for call in self.running if not call.cancelled]
        computed = Counter(value for call in self.running for value in values(call.request))
        assert not computed or max(computed.values()) == 1, f"computed at the same time: {computed}"

    def end(self, number: int, error: RequestError | None = None, *, in_part: bool = False) -> None:
        """End one of the running computations: with an answer, with the error, or by refusing its bad row.

        In part: a good row may be left alone, and the others are told beside the error.
        """
        if not self.running:
            return
        call = self.running.pop(number % len(self.running))
        computed = values(call.request)
        if error is not None:
            call.fail(error)
        elif BAD in computed and in_part:
            good = [row for row, value in enumerate(computed) if value != BAD][number % 2 :]
            errors = {computed.index(BAD): InvalidInput("bad")}
            answer = rows(*(2 * computed[row] for row in good))
            call.fail(rows_failed(errors, good, answer, call.context))
        elif BAD in computed:
            call.fail(InvalidInput("bad", row=computed.index(BAD)))
        else:
            call.reply(Tensors({"x": call.request["x"] * 2}))

    def check(self) -> None:
        """Everybody has what is his."""
        for number, (wanted, task) in enumerate(self.asked):
            assert task.done(), f"call {number} for {wanted} was never answered"
            if task.cancelled():
                assert number in self.cancelled
                continue
            error = task.exception()
            if error is None:
                assert values(task.result()) == [2 * value for value in wanted]
                continue
            assert isinstance(error, RequestError)
            assert error.request_id == str(number)
            if isinstance(error, InvalidInput):
                assert error.row is not None
                assert wanted[error.row] == BAD


@settings(max_examples=150, deadline=None)
@given(SETTINGS, st.sampled_from([HeldBackend, NearBackend]), st.lists(STEP, min_size=1, max_size=40))
def test_nobody_is_given_what_is_not_his_and_nothing_is_computed_twice_at_once(
    layer: Cache, backend: type[HeldBackend], steps: list[tuple[str, object]]
) -> None:
    asyncio.run(_play(layer, backend, steps))


async def _play(layer: Cache, kind: type[HeldBackend], steps: list[tuple[str, object]]) -> None:
    asking = Caching(layer, kind)
    story = Story(asking)
    backend = asking.backend
    assert isinstance(backend, HeldBackend)
    for what, how in steps:
        match what, how:
            case "ask", list():
                task = await asking.ask(rows(*how), asking.context(str(len(story.asked))))
                story.asked.append((how, task))
            case "cancel", int() if story.asked:
                number = how % len(story.asked)
                story.asked[number][1].cancel()
                story.cancelled.add(number)
            case "advance", float():
                await asking.clock.advance(how)
            case "hold", bool():
                for gate in (backend.gets, backend.puts):
                    gate.clear() if how else gate.set()
            case (("answer" | "in part" | "overload" | "choke"), int()):
                error = {"overload": Overloaded("full"), "choke": NodeFailed("choked")}.get(what)
                story.end(how, error, in_part=what == "in part")
            case _:
                pass
        await story.look()
    backend.gets.set()
    backend.puts.set()
    await story.look()
    while story.running:
        story.end(0)
        await story.look()
    story.check()
    await asking.made.close()
    assert not asking.made.running
    assert asking.clock.planned == 0


async def test_rows_of_many_shapes_and_datatypes_are_never_taken_for_one_another() -> None:
    """Bytes that would be alike if they were put side by side carelessly; each is answered with what it is."""
    chance = random.Random(5)
    asking = Caching(Cache(cache="hot"))

    async def tell(request: Tensors, *_: object) -> Tensors:
        whole = sorted(request.items())  # inputs go by name, in whichever order
        told = [repr([(name, array.dtype.str, array[row].tolist()) for name, array in whole]) for row in _rows(request)]
        return Tensors({"told": told})

    layer = Cache(cache="hot").bound(asking.made)(tell)
    for _ in range(1500):
        request = _alike(chance)
        answer = await layer(request, asking.context())
        assert answer == await tell(request)
    assert asking.made.counter.hits > 300


def _rows(request: Tensors) -> range:
    return range(request.rows)


def _alike(chance: random.Random) -> Tensors:
    data = bytes(chance.choice((0, 1)) for _ in range(8))
    count = chance.choice((1, 2, 4))
    match chance.randrange(4):
        case 0:
            dtype = chance.choice((np.uint8, np.int8, np.uint16, np.float16, np.float32, np.int64))
            return Tensors({"x": np.frombuffer(data, dtype).reshape(1, -1)})
        case 1:
            return Tensors({"x": np.frombuffer(data, np.uint8).reshape(count, -1)})
        case 2:
            cut = chance.randrange(3)
            return Tensors({"x": np.array([[data[:cut], data[cut:2]]], object)})
        case _:
            cut = chance.randrange(1, 3)
            names = chance.choice((("x", "y"), ("y", "x"), ("xy", "z")))
            parts = (data[:cut], data[cut:3])
            return Tensors({name: np.frombuffer(part, np.uint8)[None] for name, part in zip(names, parts, strict=True)})


ROWS = 1_000_000
"""Rows of the long walk below, by batches of 250."""


async def test_of_a_million_rows_none_is_given_another_rows_answer() -> None:
    """Models that are swapped, over one small cache, with datatypes and shapes that have the same bytes."""
    chance = np.random.default_rng(11)
    asking = Caching(Cache(cache="hot"))
    backend = MemoryBackend(max_bytes=1 << 20)

    def layer_of(model: int, dtype: type[np.generic], width: int) -> Handler[Tensors]:
        async def answer(request: Tensors, context: Context) -> Tensors:
            return Tensors.trusted({"y": _told(request["x"], model)})

        spec = KeySpec(uses="m:C", model_digest=bytes([model]), arguments={"width": width % 2})
        site = CacheSite(keys=spec, namespace="n", backend=backend)
        sites.append(site)
        return Cache(cache="hot").bound(site)(answer)

    sites: list[CacheSite] = []
    shapes: list[tuple[type[np.generic], int]] = [
        (np.uint8, 8),
        (np.int8, 8),
        (np.uint16, 4),
        (np.int32, 2),
        (np.int64, 1),
        (np.uint8, 4),
        (np.int16, 2),
    ]
    layers = {(model, dtype, width): layer_of(model, dtype, width) for model in range(3) for dtype, width in shapes}
    keys = list(layers)
    for _ in range(ROWS // 250):
        model, dtype, width = keys[int(chance.integers(len(keys)))]
        data = chance.integers(0, 6, (250, width * np.dtype(dtype).itemsize), np.uint8) * chance.integers(
            0, 2, (250, 1)
        )
        x = np.ascontiguousarray(data.astype(np.uint8)).view(dtype)
        answer = await layers[model, dtype, width](Tensors({"x": x}), asking.asked())
        assert np.array_equal(answer["y"], _told(x, model))
    counted = [sum(getattr(site.counter, name) for site in sites) for name in ("hits", "misses", "coalesced")]
    assert sum(counted) == ROWS
    assert min(counted) > 10_000, "all three ways to an answer were gone"
    assert (await backend.read_stats()).evictions > 10_000


def _told(x: np.ndarray[tuple[int, ...], np.dtype[np.generic]], model: int) -> np.ndarray[tuple[int, int], Any]:
    """Which model it was, which datatype and width, and the bytes of the row."""
    raw = np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)
    head = np.array([model, x.dtype.num, x.shape[1]], np.uint8)
    return np.concatenate([np.broadcast_to(head, (len(x), 3)), raw], axis=1)
