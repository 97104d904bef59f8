"""How long to wait before trying again: exponential, bounded, with full jitter.

Full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/): each wait is anything
from nothing to the longest one, so that those who failed together do not come back together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["HINT_MOST_S", "Backoff"]

HINT_MOST_S = 3600.0
"""The longest hint that is waited for: one hour. One that says later is taken to say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between attempts, in seconds."""

    first_s: float = 1.0
    """The longest wait before the second attempt."""
    most_s: float = 60.0
    """What no wait grows beyond, hints aside."""
    factor: float = 2.0
    """By how much the longest wait grows from one attempt to the next."""

    def __post_init__(self) -> None:
        if not (0 <= self.first_s <= self.most_s and self.factor >= 1):
            raise ValueError(f"{self} is no back-off: 0 <= first <= most, and a factor of at least 1")

    def longest_s(self, made: int) -> float:
        """The longest wait once `made` attempts were made, from 1."""
        try:
            return min(self.most_s, self.first_s * self.factor ** (made - 1))
        except OverflowError:
            return self.most_s if self.first_s else 0.0

    def delay_s(self, made: int, chance: random.Random, *, hint_s: float = 0.0, within_s: float | None = None) -> float:
        """The wait before the next attempt.

        Args:
            made: Attempts that were made, from 1.
            chance: Where the jitter comes from.
            hint_s: What whoever refused said: it is waited for first, and the jitter comes on top of it.
            within_s: The time that is left for it all. The jitter, not the hint, is cut to fit into it.
        """
        hint_s = min(max(0.0, hint_s), HINT_MOST_S)
        longest_s = self.longest_s(made)
        if within_s is not None:
            longest_s = min(longest_s, max(0.0, within_s - hint_s))
        return hint_s + longest_s * chance.random()
