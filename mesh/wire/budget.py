"""How much nonsense one peer may send.

A frame that brings nothing forward has a price. What pays is work: every event of a call, every piece of an answer, and
a little with time. Who runs out of credit is told to calm down. One rule so holds for every kind of flood alike (pings,
settings, resets, empty frames, priorities, unknown frames), and what an attacker can do below it is to be a caller.

Why the prices are as they are:

- A ping is answered, which counts as a piece sent, so it costs two: one net. A peer that measures the network pings at
  most once for each frame of data, and that frame has paid. One that pings an idle connection pays with time.
- A WINDOW_UPDATE costs one: two for each frame of data (its stream and the connection) is the most that a diligent peer
  sends, and each frame is two pieces. One that lets only a dribble through costs more than the dribble pays.
- A reset of a call that has begun costs one, and its beginning has paid: a client that cancels every call is a caller
  like any other (it hedges). One that takes calls back before we could look at them gets no credit for them at all:
  their events are dropped (`receiving`), so a rapid reset pays for itself alone.
- A rule broken within a stream costs more than the call's beginning and end pay, so that nobody can have us reset calls
  for ever (CVE-2025-8671).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mesh.wire.faults import ConnectionFault, ErrorCode

__all__ = ["ANSWERED", "BROKEN", "GLITCH", "Budget"]

GLITCH: Final = 1
"""A frame that has no effect: empty, unknown, late, a priority, a reset, a window that was open."""
ANSWERED: Final = 3
"""A frame that we answer or tell of, or both, and that nothing was gained by."""
BROKEN: Final = 5
"""A frame that breaks a rule of its stream, which we reset: an event or two and an answer, and the begun call."""


class Budget:
    """Credit of one connection.

    Args:
        most: What a peer may owe; also the most that it can save up.
        per_second: What is forgiven with time.
        clock: Seconds that never go back. Asked only when the credit has run out.
    """

    __slots__ = ("_clock", "_left", "_most", "_per_second", "_since", "earned")

    def __init__(self, most: int, *, per_second: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._left: float = most
        self._per_second = per_second
        self._clock = clock
        self._since = clock()
        self.earned = 0
        """Work done since it was last looked at; whoever does it adds to this."""

    def spend(self, price: int) -> None:
        """Take the price of a frame.

        Raises:
            ConnectionFault: There is no credit left.
        """
        self._left -= price
        if self._left < 0:
            self._collect()

    def _collect(self) -> None:
        now = self._clock()
        forgiven = (now - self._since) * self._per_second
        self._left = min(self._most, self._left + self.earned + forgiven)
        self._since = now
        self.earned = 0
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing forward")
