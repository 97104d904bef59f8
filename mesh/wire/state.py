"""`State`: what both directions of one connection share, and how its streams come and go (RFC 9113, 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import mesh.wire.frames as frames
from mesh.wire.budget import BROKEN, GLITCH, Budget
from mesh.wire.events import (
    DataReceived,
    Event,
    GoingAway,
    PingAnswered,
    RequestReceived,
    SettingsChanged,
    StreamReset,
    Terminated,
)
from mesh.wire.faults import ConnectionFault, ErrorCode, StreamFault
from mesh.wire.headers import HeaderReader
from mesh.wire.limits import WireLimits
from mesh.wire.peer import PeerSettings
from mesh.wire.sending import Sender
from mesh.wire.streams import ENDED, Stream

__all__ = ["ANY", "CONTINUATION_ONLY", "SETTINGS_ONLY", "Block", "State"]

SETTINGS_ONLY: Final = 0
"""No frame was there yet, and the first one is SETTINGS (3.4)."""
ANY: Final = 1
CONTINUATION_ONLY: Final = 2
"""A header block is under way, and nothing may come between its frames (6.10)."""

UNBOUNDED_BYTES: Final = 1 << 62
REMEMBERED_RESETS: Final = 256
"""Streams of which we know that we reset them, to tell a late frame from a wrong one."""


class Block:
    """A header block of which frames are still to come."""

    __slots__ = ("flags", "pieces", "rule", "size", "stream_id")

    def __init__(self, flags: int, stream_id: int, piece: bytes, rule: str) -> None:
        self.flags = flags
        self.stream_id = stream_id
        self.pieces = [piece]
        self.size = len(piece)
        self.rule = rule
        """What is wrong with its first frame, to be said once the block was decoded."""


class State:
    """One connection: its settings, windows and streams.

    A stream that is closed leaves nothing behind but its number. Exceptions are those that we reset ourselves: what the
    peer had sent before it knew is no fault, so the last of them are remembered, and all that are older than the oldest
    remembered one get the benefit of the doubt.
    """

    __slots__ = (
        "_born",
        "_resets",
        "_resets_forgotten",
        "_skipped",
        "_stillborn",
        "block",
        "budget",
        "client",
        "events",
        "expects",
        "gone_at",
        "held",
        "highest_remote",
        "joined",
        "limits",
        "next_id",
        "peer",
        "peer_gone_at",
        "pings_out",
        "reader",
        "receive_window",
        "remote_open",
        "sender",
        "settings_unanswered",
        "stream_window",
        "streams",
        "terminated",
        "unacknowledged",
    )

    def __init__(self, *, client: bool, limits: WireLimits, clock: Callable[[], float]) -> None:
        self.client = client
        self.limits = limits
        self.peer = PeerSettings()
        # What a client holds is its own choice.
        self.sender = Sender(self.peer, limits.max_waiting_bytes if not client else UNBOUNDED_BYTES)
        self.budget = Budget(limits.max_glitches, per_second=limits.glitches_per_second, clock=clock)
        self.reader = HeaderReader(limits, requests=not client)
        self.events: list[Event] = []
        """What happened since the last read was handed over."""
        self.streams: dict[int, Stream] = {}
        """Streams that are neither idle nor closed."""
        self.joined = 0
        """How many events more this read would have told if calls were not joined: all of them are work."""
        self.terminated = False
        self.expects = SETTINGS_ONLY
        self.block: Block | None = None
        self.next_id = 1 if client else 2
        self.highest_remote = 0
        self.remote_open = 0
        """Streams of the peer's that are not closed."""
        self.held = 0
        """Calls that count as open although their stream is gone."""
        self.peer_gone_at = frames.MAX_STREAM_ID
        """The last stream of ours that the peer takes."""
        self.gone_at = frames.MAX_STREAM_ID
        """The last stream of the peer's that we take."""
        self.receive_window = limits.connection_window_bytes
        self.unacknowledged = 0
        self.stream_window = max(limits.stream_window_bytes, frames.DEFAULT_WINDOW)
        """What a new stream may receive: at least the default until the peer has acknowledged our settings (6.9.2)."""
        self.settings_unanswered = 1
        self.pings_out = 0
        self._born = 0
        """The highest stream of the peer's before this read."""
        self._stillborn: set[int] = set()
        """Streams that were opened and reset within this read."""
        self._resets: dict[int, None] = {}
        self._resets_forgotten = 0
        self._skipped = range(0)
        """The last gap in the peer's stream numbers."""

    # Streams: idle => open => half closed => closed.

    def is_idle(self, stream_id: int) -> bool:
        """Whether a stream has not been used yet."""
        ours = bool(stream_id & 1) == self.client
        return stream_id >= self.next_id if ours else stream_id > self.highest_remote

    def was_reset(self, stream_id: int) -> bool:
        """Whether we may have reset a stream that is closed: late frames are ignored."""
        return stream_id in self._resets or stream_id <= self._resets_forgotten

    def was_skipped(self, stream_id: int) -> bool:
        """Whether a stream was closed by the use of a higher number, as far as that is known (5.1.1)."""
        return stream_id in self._skipped

    def open_local(self) -> Stream:
        """A new stream of ours."""
        stream_id = self.next_id
        self.next_id = stream_id + 2
        stream = self.streams[stream_id] = Stream(stream_id, self.peer.initial_window, self.stream_window)
        return stream

    def open_remote(self, stream_id: int) -> Stream | None:
        """A new stream of the peer's, whose number was not used yet; None where it comes after our GOAWAY.

        Raises:
            StreamFault: It is one too many.
        """
        if stream_id > self.highest_remote + 2:
            self._skipped = range((self.highest_remote + 1) | 1, stream_id, 2)
        self.highest_remote = stream_id
        if stream_id > self.gone_at:
            self.remember_reset(stream_id)
            self.budget.spend(GLITCH)
            return None
        if self.remote_open + self.held >= self.limits.max_concurrent_streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, "5.1.2: too many streams")
        stream = self.streams[stream_id] = Stream(stream_id, self.peer.initial_window, self.stream_window)
        self.remote_open += 1
        return stream

    def received_end(self, stream: Stream) -> None:
        """The peer's half is over."""
        stream.receiving = ENDED
        if stream.sending == ENDED and stream.waiting is None:
            self.close(stream.stream_id)

    def close(self, stream_id: int) -> None:
        """Both halves are over."""
        del self.streams[stream_id]
        if bool(stream_id & 1) != self.client:
            self.remote_open -= 1

    def drop(self, stream_id: int) -> bool:
        """End a stream before its time. Says whether anybody has heard of it: not where this read has begun it."""
        self.sender.drop(self.streams[stream_id])
        self.close(stream_id)
        if stream_id > self._born and not self.client:
            self._stillborn.add(stream_id)
            return False
        return True

    def remember_reset(self, stream_id: int) -> None:
        """Late frames of this stream are to be ignored."""
        resets = self._resets
        if len(resets) >= REMEMBERED_RESETS:
            oldest = next(iter(resets))
            del resets[oldest]
            self._resets_forgotten = max(self._resets_forgotten, oldest)
        resets[stream_id] = None

    # Faults and events.

    def end_stream(self, fault: StreamFault) -> None:
        """Answer a rule broken within one stream."""
        stream_id = fault.stream_id
        self.budget.spend(BROKEN)
        self.sender.control(frames.rst_stream(stream_id, fault.code))
        if stream_id in self.streams and self.drop(stream_id):
            self.events.append(StreamReset(stream_id, fault.code, remote=False, text=fault.text))
        self.remember_reset(stream_id)

    def end(self, fault: ConnectionFault) -> None:
        """Answer a rule broken for the whole connection."""
        self.go_away(fault.code, fault.text)
        self.terminated = True
        self.block = None
        for stream in self.streams.values():
            self.sender.drop(stream)
        self.streams.clear()
        self.remote_open = 0
        self.events.append(Terminated(fault.code, fault.text))

    def go_away(self, code: ErrorCode, text: str) -> None:
        """Take no stream above the highest that was seen; what was said once is not widened again (6.8)."""
        self.gone_at = min(self.gone_at, self.highest_remote)
        self.sender.out.append(frames.goaway(self.gone_at, code, text.encode()[:128]))

    def end_read(self) -> list[Event]:
        """What is to be told of a read. A call that came and went within it is not told of at all: nobody works for it,
        and it pays for nothing (CVE-2023-44487).
        """
        events = self.events
        self.events = []
        self._born = self.highest_remote
        if self._stillborn:
            events = [event for event in events if not self._is_stillborn(event)]
            self._stillborn.clear()
        self.budget.earned += len(events) + self.joined
        self.joined = 0
        return events

    def _is_stillborn(self, event: Event) -> bool:
        if isinstance(event, SettingsChanged | PingAnswered | GoingAway | Terminated):
            return False
        if event.stream_id not in self._stillborn:
            return False
        if isinstance(event, DataReceived | RequestReceived):
            self.acknowledge(event.flow_bytes)
        if isinstance(event, RequestReceived):
            self.joined -= 1
        return True

    # Flow control of what is received.

    def acknowledge(self, count: int) -> None:
        """Bytes that counted against the connection are gone. The peer is told when half of the window is."""
        self.unacknowledged += count
        if self.unacknowledged * 2 >= self.limits.connection_window_bytes:
            self.sender.out.append(frames.window_update(0, self.unacknowledged))
            self.receive_window += self.unacknowledged
            self.unacknowledged = 0

    def acknowledge_stream(self, stream: Stream, count: int) -> None:
        """The same for one stream, where there is more to come."""
        stream.unacknowledged += count
        if stream.unacknowledged * 2 >= self.limits.stream_window_bytes:
            self.sender.out.append(frames.window_update(stream.stream_id, stream.unacknowledged))
            stream.receive_window += stream.unacknowledged
            stream.unacknowledged = 0
