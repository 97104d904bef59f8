"""The event loop that workers and the command line run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["loop_factory"]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop of uvloop where that is installed, else asyncio's own; for `asyncio.Runner`."""
    try:
        import uvloop
    except ImportError:  # no wheel for this system
        return asyncio.new_event_loop
    return uvloop.new_event_loop
