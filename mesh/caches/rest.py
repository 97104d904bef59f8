"""A backend that keeps failing is left alone for a while: requests do not wait for its timeout again and again."""

from __future__ import annotations

from mesh.context import Clock

__all__ = ["Rest"]


class Rest:
    """Three failures in a row begin a rest. When it is over, one operation may try; the others follow if it succeeds.

    Args:
        clock: What rests are measured by.
        after: Failures in a row that begin a rest.
        rest_s: How long it is; also how long to wait for what became of a try.
    """

    __slots__ = ("_after", "_clock", "_failures", "_rest_s", "_until")

    def __init__(self, clock: Clock, *, after: int = 3, rest_s: float = 1.0) -> None:
        self._clock = clock
        self._after = after
        self._rest_s = rest_s
        self._failures = 0
        self._until: float | None = None

    def may_try(self) -> bool:
        """Whether to try. One that is told to has to report what became of it, unless it was cancelled."""
        if self._until is None:
            return True
        now = self._clock.now()
        if now < self._until:
            return False
        self._until = now + self._rest_s
        return True

    def succeeded(self) -> bool:
        """An operation succeeded; whether this ends an outage."""
        outage = self._failures > 0
        self._failures = 0
        self._until = None
        return outage

    def failed(self) -> bool:
        """An operation failed; whether this begins an outage."""
        self._failures += 1
        if self._failures >= self._after:
            self._until = self._clock.now() + self._rest_s
        return self._failures == 1

    @property
    def resting(self) -> bool:
        """Whether enough failed for a rest."""
        return self._until is not None
