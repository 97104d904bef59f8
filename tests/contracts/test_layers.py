"""`check_layer` on every layer, with settings that reach its fast path and its slow one."""

from __future__ import annotations

import pytest

from mesh.caches import KeySpec, open_backend
from mesh.handler import Handler, Layer, stack
from mesh.layers import LAYERS, AnyLayer, Batch, Breaker, Cache, CacheSite, Hedge, Limit, Queue, Retry, Timeout
from mesh.tensors import Tensors
from mesh.testing import check_layer

SETTINGS: list[AnyLayer] = [
    Batch(),
    Batch(max_rows=2),
    Batch(max_rows=4, max_delay_s=0.02),
    Batch(max_concurrent=2),
    # Such as stay closed: a breaker that opens is there to break the rule that failures leave as much room as before.
    Breaker(failures=1000, error_rate=None),
    Breaker(failures=None, min_calls=1000),
    Cache(cache="hot"),
    Cache(cache="hot", ttl_s=60.0, stale_s=10.0, key=("x",), parameters=("k",)),
    Hedge(after=0.005, max_share=1.0),
    Hedge(after="p50", min_samples=2, max_share=1.0),
    Limit(max_concurrent=4),
    Limit(max_concurrent=1, max_waiting=3),
    Queue(max_rows=8),
    Queue(max_rows=4, when_full="wait", max_waiting=4),
    Queue(max_rows=1, when_full="wait", max_waiting=4),
    Retry(),
    Retry(attempts=5, wait_for_hint=True, budget=100),
    Timeout(after_s=2.0),
]


def made(settings: AnyLayer) -> Layer:
    """The layer anew; one that has to be bound to something gets a cache of its own."""
    if not isinstance(settings, Cache):
        return settings.model_copy()
    return settings.bound(CacheSite(keys=KeySpec(uses="m:C"), namespace="node", backend=open_backend("memory://")))


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
async def test_layer_keeps_the_contract(settings: AnyLayer) -> None:
    await check_layer(lambda: made(settings))


def test_every_layer_is_under_contract() -> None:
    assert {type(settings) for settings in SETTINGS} == set(LAYERS.values())


async def test_a_stack_of_layers_keeps_the_contract_of_a_layer() -> None:
    class Stack:
        def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
            cache = made(Cache(cache="hot"))
            inner = (Retry(), Timeout(after_s=2.0), Queue(max_rows=8), Limit(max_concurrent=8), Batch(max_rows=4))
            return stack(handler, cache, *inner)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Stack)

        def __hash__(self) -> int:
            return hash(Stack)

    def make() -> Layer:
        return Stack()

    await check_layer(make)
