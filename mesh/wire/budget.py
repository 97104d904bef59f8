"""How much nonsense one peer may send.

Every frame that brings nothing forward is a glitch; every call that was completed pays for one. A peer that runs out of
credit is told to calm down. It needs no clock, holds for every kind of flood alike (pings, settings, resets, empty
frames, priorities, unknown frames), and a peer that does real work never comes near it.
"""

from __future__ import annotations

from mesh.wire.faults import ConnectionFault, ErrorCode

__all__ = ["Budget"]


class Budget:
    """Credit of one connection.

    Args:
        most: Glitches that a peer may have ahead of completed calls.
    """

    __slots__ = ("_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def glitch(self) -> None:
        """Count a frame without progress.

        Raises:
            ConnectionFault: That was one too many.
        """
        self._left -= 1
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing forward")

    def progress(self) -> None:
        """Count a call that was completed. It pays for two: a call may well need a window update and a reset."""
        if self._left < self._most:
            self._left += 2
