"""The event loop that workers and the command line run on, and how it shares the interpreter with all else."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

__all__ = ["collect_seldom", "loop_factory", "yield_to_models"]

SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms are as long as a model runs: measured with batches of 15 ms, the loop and the model's thread took
turns instead of running side by side (50 µs a row; 38 with this, and no better or worse down to 0.2 ms)."""


def yield_to_models() -> None:
    """Have the loop give the interpreter to a waiting thread sooner. For a process that is all ours: it holds for all
    of it.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


YOUNG_OBJECTS = 10_000
"""Python's own 700 are fewer than a hundred requests in flight hold, so the collector looked through them again and
again and found nothing: it took a third of what a request through a batch layer costs with 1,024 callers."""


def collect_seldom() -> None:
    """Have the collector of cycles run once in so many objects. A request leaves no cycle behind, however it ends; a
    node's own code may. For a process that is all ours.
    """
    gc.set_threshold(YOUNG_OBJECTS)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop of uvloop where that is installed, else asyncio's own; for `asyncio.Runner`."""
    try:
        import uvloop
    except ImportError:  # no wheel for this system
        return asyncio.new_event_loop
    return uvloop.new_event_loop
