"""Every cache node of the library, as a backend over every kind of link, keeps the contract of a cache."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import nodes
from mesh import Cache
from mesh.caches import BackendSettings
from mesh.context import SYSTEM_CLOCK
from mesh.handler import Handler
from mesh.runtime.keeping import NodeBackend, keeping
from mesh.testing import CACHE_RULES, CacheBench, ManualClock, check_cache
from mesh.transports import Limits
from mesh.transports.contract import CACHE, Endpoint
from nodes.cache import MemoryCache
from tests.harness.meshes import LINKS

MAX_BYTES = 1 << 20
MAX_VALUE_BYTES = 64 << 10
LIMITS = Limits(max_message_bytes=256 << 10)
SETTINGS = BackendSettings(max_bytes=MAX_BYTES, max_value_bytes=MAX_VALUE_BYTES, timeout_s=30.0)
RULES = [rule for rule in CACHE_RULES if rule != "aiocache"]
"""Less what is for aiocache's own backends."""


class Timed(MemoryCache):
    """On a clock that the test moves."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(max_bytes=MAX_BYTES, max_value=MAX_VALUE_BYTES, clock=clock)


@asynccontextmanager
async def bench(link: str) -> AsyncGenerator[CacheBench]:
    clock = ManualClock()
    node = Timed(clock)
    kind = LINKS[link]
    with TemporaryDirectory() as folder:
        transport = kind.transport()
        endpoint = Endpoint(kind=CACHE, name="store", handler=keeping(node, "store", LIMITS.max_message_bytes))
        address = kind.address.format(folder, "store", 0)
        async with node:
            listener = await transport.listen(address, [endpoint], LIMITS)
            far = await transport.dial(listener.address, LIMITS)
            handler = far.handler(CACHE, "store")

            async def reach() -> Handler[Any]:
                return handler

            def make() -> NodeBackend:
                return NodeBackend("store", reach, SETTINGS, LIMITS.max_message_bytes, SYSTEM_CLOCK)

            await make().probe()  # connected: what the transport itself leaves running is there from the start
            yield CacheBench(make=make, pass_time=clock.advance, max_value_bytes=MAX_VALUE_BYTES, max_bytes=MAX_BYTES)
            await far.close()
            await listener.drain(1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("link", ["inproc", "inproc-strict", "wire"])  # grpcio's server has tasks of its own
async def test_a_cache_node_behind_a_link_keeps_the_contract(rule: str, link: str) -> None:
    async with bench(link) as made:
        await check_cache(made, rule)


def test_every_cache_node_of_the_library_is_under_contract() -> None:
    found: set[Callable[..., Cache]] = set()
    for module in pkgutil.walk_packages(nodes.__path__, "nodes."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, Cache) and value.__module__ == module.name:
                found.add(value)
    assert found == {MemoryCache}


def test_where_it_lies_is_told(tmp_path: Path) -> None:
    async def reach() -> Handler[Any]:
        raise AssertionError

    assert NodeBackend("store", reach, SETTINGS, 1 << 20, SYSTEM_CLOCK).url == "mesh://store"
