"""So many things at once, and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["Slots"]

log = logging.getLogger("mesh.jobs")


class Slots:
    """A bounded number of tasks.

    Args:
        count: How many there may be at once.
        changed: Set whenever one ends.
    """

    def __init__(self, count: int, changed: asyncio.Event) -> None:
        if count < 1:
            raise ValueError(f"{count} slots hold nothing")
        self._count = count
        self.changed = changed
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """How many more there may be."""
        return self._count - len(self._tasks)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Those that are under way."""
        return set(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin something, for which there has to be a slot. What it raises is logged: it has to end well by itself."""
        assert self.free > 0, "nobody may begin what there is no slot for"
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job's attempt ended in a way that it never should", exc_info=error)
