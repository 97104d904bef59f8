"""`WireLimits`: what one connection may ask of us. Every bound has a default, and none is infinite."""

from __future__ import annotations

from dataclasses import dataclass

import mesh.wire.frames as frames

__all__ = ["WireLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """Bounds of one HTTP/2 connection, and what of them is told to the peer.

    Raises:
        ValueError: A value that HTTP/2 cannot express, or with which nothing could be received; names the setting.
    """

    max_concurrent_streams: int = 1024
    """Calls that the peer may have open at once; more are refused with REFUSED_STREAM, which is safe to retry."""
    max_frame_bytes: int = 65_536
    """Longest frame that we take (SETTINGS_MAX_FRAME_SIZE); from 16,384."""
    stream_window_bytes: int = 4 << 20
    """Data of one stream that may be on its way to us and not consumed."""
    connection_window_bytes: int = 16 << 20
    """The same for all streams together: what one connection can make us hold; from 65,535."""
    max_header_bytes: int = 65_536
    """Longest header block, compressed or not, after which the connection ends (header bombs, CONTINUATION floods)."""
    max_header_list_bytes: int = 16_384
    """Longest header list that a call may have (SETTINGS_MAX_HEADER_LIST_SIZE), as RFC 9113 6.5.2 counts: 32 bytes a
    field and its text. A call above it is refused by itself."""
    max_headers_frames: int = 16
    """Most frames that one header block may come in (CVE-2024-27316 and its like send them without end)."""
    max_waiting_bytes: int = 256 << 20
    """Most bytes of answers, over all calls, that may wait for a client: for its windows, or until it reads. A call
    whose data would go beyond is reset (one message is taken whatever its length, where nothing else waits)."""
    max_held_bytes: int = 256 << 20
    """Most bytes of requests, over all calls, that are held because they are not whole or nobody has read them yet. The
    call that goes beyond ends as RESOURCE_EXHAUSTED."""
    max_control_backlog_bytes: int = 256 << 10
    """Most bytes of answers to control frames that wait because the peer does not read."""
    max_glitches: int = 10_000
    """Most frames without progress (pings, settings, empty frames, resets, unknown frames) in excess of the work that
    was done; then the connection ends with ENHANCE_YOUR_CALM (CVE-2019-9511 to 9518, CVE-2023-44487). See `Budget`."""
    glitches_per_second: int = 100
    """How many of them are forgiven with time."""
    remembered_blocks: int = 256
    """Header blocks remembered by their bytes; the oldest is forgotten first."""
    remembered_bytes: int = 512 << 10
    """Memory for what is remembered of header blocks; 0 remembers nothing."""
    hello_s: float = 20.0
    """How long a connection may take to say hello (its TLS handshake as well), or it is closed."""
    slow_frame_s: float = 20.0
    """How long a frame, or a header block, may take from its first byte to its last (slow headers)."""
    stalled_s: float = 60.0
    """How long a peer may take not a single byte of what was written for it (a client that never reads)."""
    linger_s: float = 5.0
    """How long the last words of a connection may take to go out once it is closed."""

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[int, int]] = {
            "max_concurrent_streams": (0, frames.MAX_WINDOW),
            "max_frame_bytes": (frames.DEFAULT_FRAME, frames.MAX_FRAME),
            "stream_window_bytes": (1, frames.MAX_WINDOW),
            "connection_window_bytes": (frames.DEFAULT_WINDOW, frames.MAX_WINDOW),
            "max_header_list_bytes": (1, frames.MAX_WINDOW),
        }
        for name in self.__slots__:
            least, most = ranges.get(name, (0, 1 << 53))
            value: float = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}: from {least} to {most}")
