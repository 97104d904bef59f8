"""`Upkeep`: looks after the connections of a server, all of them in one round every second.

Who says nothing, who never ends what it has begun, who takes nothing, who is idle or old. What each of them may is a
setting of `WireLimits` or `ServerOptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from mesh.wire.connection import Connection
from mesh.wire.limits import WireLimits
from mesh.wire.options import ServerOptions

__all__ = ["Progress", "Upkeep"]

KEEPALIVE_PING = b"keepaliv"


class Progress:
    """Since when a number stands still."""

    __slots__ = ("_since", "_value")

    def __init__(self) -> None:
        self._value = -1
        self._since = 0.0

    def stands_s(self, value: int, now: float) -> float:
        """Seconds since it was seen to change."""
        if value != self._value:
            self._value = value
            self._since = now
        return now - self._since


class Watched(Protocol):
    """What upkeep has to know of a connection, and may do with it."""

    connection: Connection
    opened_at: float
    age_factor: float
    """Spreads ages, so that clients that came together do not come back together."""
    heard_at: float
    pinged_at: float | None
    draining_at: float | None
    paused: bool
    reading: Progress
    writing: Progress

    @property
    def written_bytes(self) -> int:
        """Bytes that the operating system has taken."""
        ...

    @property
    def busy(self) -> bool:
        """Whether there is a call."""
        ...

    def keep_alive(self, payload: bytes, /) -> None:
        """Send a ping."""
        ...

    def drain(self) -> None:
        """Take no new calls, and close when the last is over."""
        ...

    def abort(self) -> None:
        """End every call, and hang up."""
        ...

    def cut(self) -> None:
        """Hang up at once, whatever was not sent."""
        ...


class Upkeep:
    """One server's.

    Args:
        connections: Those that are open.
        options: What the server was told.
        limits: What a connection may.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        connections: Collection[Watched],
        options: ServerOptions,
        limits: WireLimits,
        clock: Callable[[], float],
    ) -> None:
        self._connections = connections
        self._options = options
        self._limits = limits
        self._clock = clock

    def look(self) -> None:
        """One round."""
        now = self._clock()
        for connection in list(self._connections):
            if self._is_stuck(connection, now):
                connection.cut()
            elif self._is_mute(connection, now):
                connection.abort()
            else:
                self._look_at(connection, now)

    def _is_stuck(self, watched: Watched, now: float) -> bool:
        """Whether it takes nothing of what is written."""
        written = watched.writing.stands_s(watched.written_bytes, now)
        return watched.paused and written > self._limits.stalled_s

    def _is_mute(self, watched: Watched, now: float) -> bool:
        """Whether something that has begun does not end: the connection itself, a frame, a header block."""
        wire = watched.connection
        if not wire.settled:
            return now - watched.opened_at > self._limits.hello_s
        # While we do not read, it is not the peer's doing.
        unfinished = wire.incomplete and not watched.paused
        stands = watched.reading.stands_s(wire.rounds if unfinished else -1, now)
        return unfinished and stands > self._limits.slow_frame_s

    def _look_at(self, watched: Watched, now: float) -> None:
        options = self._options
        pinged_at = watched.pinged_at
        if pinged_at is not None and watched.heard_at > pinged_at:
            pinged_at = watched.pinged_at = None  # whatever it said, it lives
        if pinged_at is not None and now - pinged_at > options.keepalive_timeout_s:
            watched.cut()
        elif watched.draining_at is not None:
            if options.max_age_grace_s is not None and now - watched.draining_at > options.max_age_grace_s:
                watched.abort()
        elif self._has_had_its_time(watched, now):
            watched.drain()
        elif options.keepalive_s is not None and pinged_at is None and now - watched.heard_at > options.keepalive_s:
            watched.keep_alive(KEEPALIVE_PING)

    def _has_had_its_time(self, watched: Watched, now: float) -> bool:
        options = self._options
        if options.max_age_s is not None and now - watched.opened_at > options.max_age_s * watched.age_factor:
            return True
        return options.max_idle_s is not None and not watched.busy and now - watched.heard_at > options.max_idle_s
