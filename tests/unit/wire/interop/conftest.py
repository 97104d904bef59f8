"""The matrix runs on the loop that meshes run on: uvloop's, where it is installed. Other tests use both."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Mapping

import pytest

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    if importlib.util.find_spec("uvloop"):
        return {"uvloop": importlib.import_module("uvloop").new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
