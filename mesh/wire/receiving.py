"""`Receiver`: the peer's bytes, cut into frames. Section numbers are those of RFC 9113."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import mesh.wire.control as control
import mesh.wire.exchange as exchange
import mesh.wire.frames as frames
from mesh.wire.events import Event
from mesh.wire.faults import ConnectionFault, ErrorCode, StreamFault
from mesh.wire.joining import Joiner, read_requests, read_responses
from mesh.wire.state import ANY, SETTINGS_ONLY, State

__all__ = ["Receiver"]

MOST_PIECES: Final = 64
"""Pieces of an incomplete frame that are kept apart."""

Reader = Callable[[State, int, int, bytes, int, int], None]
"""Reads the payload of one frame: its flags, its stream, and what it was cut out of from where to where."""

_OTHERS: Final = range(10, 256)
_BY_KIND: Final[tuple[Reader, ...]] = (
    exchange.on_data,
    exchange.on_headers,
    control.on_priority,
    control.on_rst_stream,
    control.on_settings,
    control.on_push_promise,
    control.on_ping,
    control.on_goaway,
    control.on_window_update,
    exchange.on_continuation,
    *(control.on_unknown for _ in _OTHERS),
)
_FIRST: Final[tuple[Reader, ...]] = tuple(
    control.on_first_settings if kind == frames.SETTINGS else control.not_settings for kind in range(256)
)
_WITHIN_BLOCK: Final[tuple[Reader, ...]] = tuple(
    exchange.on_continuation if kind == frames.CONTINUATION else control.not_continuation for kind in range(256)
)
_READERS: Final = (_FIRST, _BY_KIND, _WITHIN_BLOCK)
"""Who reads a frame, by what the connection expects and by the kind of the frame."""


class Receiver:
    """Reads one connection.

    Args:
        state: The connection.
        joins: Whether calls that come whole are told of as such (`joining`).
    """

    __slots__ = ("_join", "_missing", "_pieces", "_preface", "_state", "rounds")

    def __init__(self, state: State, *, joins: bool) -> None:
        self._state = state
        self._join: Joiner | None = None
        if joins:
            self._join = read_responses if state.client else read_requests
        self._preface = b"" if state.client else frames.PREFACE
        self._pieces: list[bytes] = []
        """The beginning of an incomplete frame."""
        self._missing = 0
        """Bytes without which nothing can be read of it."""
        self.rounds = 0
        """Reads in which a frame came to its end that is no part of an unfinished header block."""

    @property
    def settled(self) -> bool:
        """Whether the peer's first frame, SETTINGS, was there."""
        return self._state.expects != SETTINGS_ONLY

    @property
    def incomplete(self) -> bool:
        """Whether a frame, a header block or the preface has begun and is not whole."""
        return self._state.block is not None or bool(self._pieces) or 0 < len(self._preface) < len(frames.PREFACE)

    def receive(self, data: bytes) -> list[Event]:
        """What some bytes of the peer mean. Frames may be cut anywhere between calls."""
        state = self._state
        if state.terminated:
            return []
        try:
            position = self._read_preface(data) if self._preface else 0
            while self._pieces and position < len(data):
                position = self._complete(data, position)
            if position < len(data):
                self._read(data, position)
            if state.sender.control_backlog > state.limits.max_control_backlog_bytes:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "answers to control frames are not read")
        except ConnectionFault as fault:
            self._pieces = []
            state.end(fault)
        return state.end_read()

    def _complete(self, data: bytes, position: int) -> int:
        """Add what an incomplete frame lacks, and no more, so that little is copied; returns how far data was used."""
        missing = self._missing
        piece = data[position : position + missing]
        self._pieces.append(piece)
        if len(piece) < missing:
            self._missing -= len(piece)
            if len(self._pieces) >= MOST_PIECES:
                self._pieces = [b"".join(self._pieces)]
        else:
            whole = b"".join(self._pieces)
            self._pieces = []
            self._read(whole, 0)
        return position + len(piece)

    def _read(self, data: bytes, position: int) -> None:
        """Read whole frames, and keep what is left."""
        end = self._read_frames(data, position)
        if end > position and self._state.block is None:
            self.rounds += 1
        if end < len(data):
            self._pieces = [data[end:] if end else data]

    def _read_preface(self, data: bytes) -> int:
        wanted = self._preface
        given = data[: len(wanted)]
        if not wanted.startswith(given):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "3.4: not the preface of HTTP/2")
        self._preface = wanted[len(given) :]
        return len(given)

    def _read_frames(self, data: bytes, position: int) -> int:
        """Read whole frames; returns where the first begins that is not whole, and notes what it lacks."""
        state = self._state
        size = len(data)
        unpack = frames.HEAD.unpack_from
        longest = state.limits.max_frame_bytes
        join = self._join
        while size - position >= frames.HEAD_SIZE:
            upper, lower, kind, flags, stream_id = unpack(data, position)
            length = upper << 8 | lower
            begin = position + frames.HEAD_SIZE
            end = begin + length
            if kind == frames.HEADERS and join is not None and state.expects == ANY:
                joined = join(state, data, position)
                if joined != position:
                    position = joined
                    continue
            if length > longest:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "4.2: a frame longer than we take")
            if end > size:
                self._missing = end - size
                return position
            try:
                _READERS[state.expects][kind](state, flags, stream_id & frames.MAX_STREAM_ID, data, begin, end)
            except StreamFault as fault:
                state.end_stream(fault)
            position = end
        self._missing = position + frames.HEAD_SIZE - size
        return position
