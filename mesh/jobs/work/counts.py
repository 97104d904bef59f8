"""What one job worker has done, counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Counted", "WorkCounter", "WorkCounts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCounts:
    """Since the worker began. `begun` is the sum of the ways in which attempts end, and of those under way."""

    begun: int = 0
    """Attempts that were begun."""
    done: int = 0
    """Attempts whose result is the job's."""
    failed: int = 0
    """Attempts whose error is the job's."""
    retried: int = 0
    """Attempts that another follows."""
    lost: int = 0
    """Attempts that counted for nothing: the job was cancelled, another worker had taken it over, or the store was gone
    for too long."""
    released: int = 0
    """Attempts that were given back untouched, by a worker that was told to stop."""
    callbacks_told: int = 0
    """Callbacks that were heard."""
    callbacks_retried: int = 0
    """Attempts at callbacks that another follows."""
    callbacks_failed: int = 0
    """Callbacks that were given up."""


Counted = Literal[
    "begun",
    "done",
    "failed",
    "retried",
    "lost",
    "released",
    "callbacks_told",
    "callbacks_retried",
    "callbacks_failed",
]
"""What is counted."""


class WorkCounter:
    """Counts."""

    def __init__(self) -> None:
        self.counts = WorkCounts()
        """What it comes to by now."""

    def add(self, what: Counted) -> None:
        """One more."""
        self.counts = replace(self.counts, **{what: getattr(self.counts, what) + 1})
