"""`WireLimits`: what one connection may ask of us. Every bound has a default, and none is infinite."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WireLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """Bounds of one HTTP/2 connection, and what of them is told to the peer."""

    max_concurrent_streams: int = 1024
    """Calls that the peer may have open at once; more are refused with REFUSED_STREAM, which is safe to retry."""
    max_frame_bytes: int = 65_536
    """Longest frame that we take (SETTINGS_MAX_FRAME_SIZE); from 16,384."""
    stream_window_bytes: int = 4 << 20
    """Data of one stream that may be on its way to us and not consumed."""
    connection_window_bytes: int = 16 << 20
    """The same for all streams together: what one connection can make us hold."""
    max_header_bytes: int = 65_536
    """Longest header block, compressed or not, after which the connection ends (header bombs, CONTINUATION floods)."""
    max_header_list_bytes: int = 16_384
    """Longest header list that a call may have (SETTINGS_MAX_HEADER_LIST_SIZE), as RFC 9113 6.5.2 counts: 32 bytes a
    field and its text. A call above it is refused by itself."""
    max_headers_frames: int = 16
    """Most frames that one header block may come in (CVE-2024-27316 and its like send them without end)."""
    max_control_backlog_bytes: int = 256 << 10
    """Most bytes of answers to control frames that wait because the peer does not read."""
    max_glitches: int = 2_000
    """Most frames without progress (pings, settings, empty frames, resets, unknown frames) in excess of the calls that
    were completed; then the connection ends with ENHANCE_YOUR_CALM (CVE-2019-9511 to 9518, CVE-2023-44487)."""
    remembered_blocks: int = 256
    """Header blocks remembered by their bytes; the oldest is forgotten first."""
