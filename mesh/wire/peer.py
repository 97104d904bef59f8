"""What the peer said that it takes: SETTINGS (RFC 9113, 6.5.2)."""

from __future__ import annotations

import struct

import mesh.wire.frames as frames
from mesh.wire.faults import ConnectionFault, ErrorCode

__all__ = ["PeerSettings"]

_SETTING = struct.Struct(">HI")
MAX_SETTINGS = 64
"""Most settings in one frame that are worth reading."""


class PeerSettings:
    """The peer's settings, with the values that hold until it says otherwise."""

    __slots__ = ("_told", "initial_window", "max_concurrent_streams", "max_frame", "max_header_list")

    def __init__(self) -> None:
        self._told = False
        self.initial_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME
        self.max_concurrent_streams = 100
        """Unbounded by the RFC until the first SETTINGS; it recommends at least 100."""
        self.max_header_list = frames.MAX_WINDOW

    def update(self, data: bytes, begin: int, end: int, *, by_server: bool) -> int:
        """Read one frame's settings; returns by how much the initial window grew.

        Raises:
            ConnectionFault: A value is out of its range.
        """
        if (end - begin) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.5: settings are six bytes each")
        if end - begin > 6 * MAX_SETTINGS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "more settings than there are")
        before = self.initial_window
        if not self._told:
            # Who does not bound it in the first frame does not bound it.
            self._told = True
            self.max_concurrent_streams = frames.MAX_WINDOW
        for place in range(begin, end, 6):
            name, value = _SETTING.unpack_from(data, place)
            match name:
                case frames.ENABLE_PUSH:
                    if value > 1 or (by_server and value):
                        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.5.2: ENABLE_PUSH is 0 or 1, from a client")
                case frames.INITIAL_WINDOW_SIZE:
                    if value > frames.MAX_WINDOW:
                        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.5.2: a window past 2^31-1")
                    self.initial_window = value
                case frames.MAX_FRAME_SIZE:
                    if not frames.DEFAULT_FRAME <= value <= frames.MAX_FRAME:
                        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.5.2: a frame size out of range")
                    self.max_frame = value
                case frames.MAX_CONCURRENT_STREAMS:
                    self.max_concurrent_streams = value
                case frames.MAX_HEADER_LIST_SIZE:
                    self.max_header_list = value
                case _:
                    pass  # HEADER_TABLE_SIZE does not matter, since we use no table; others are unknown (6.5.2)
        return self.initial_window - before
