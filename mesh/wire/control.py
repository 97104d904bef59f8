"""What keeps a connection going: settings, pings, windows, resets and GOAWAY of the peer.

Each function reads one frame's payload, `data[begin:end]`. Section numbers are those of RFC 9113.
"""

from __future__ import annotations

from typing import Final

import mesh.wire.frames as frames
from mesh.wire.budget import ANSWERED, GLITCH
from mesh.wire.events import GoingAway, PingAnswered, SettingsChanged, StreamReset, WindowOpened
from mesh.wire.faults import ConnectionFault, ErrorCode, StreamFault
from mesh.wire.state import ANY, State
from mesh.wire.streams import ENDED, Stream

__all__ = [
    "broken_priority",
    "not_continuation",
    "not_settings",
    "on_first_settings",
    "on_goaway",
    "on_ping",
    "on_priority",
    "on_push_promise",
    "on_rst_stream",
    "on_settings",
    "on_unknown",
    "on_window_update",
]

DRIBBLE_BYTES: Final = 5
"""A window that opens by less than the prefix of a message, while data waits for it, costs more than it pays
(CVE-2019-9511)."""
STREAMS_A_GLITCH: Final = 16
"""Streams whose windows are changed for the price of one frame without effect."""


def _number(data: bytes, begin: int) -> int:
    return int.from_bytes(data[begin : begin + 4], "big")


def not_settings(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """Any other frame before the first SETTINGS."""
    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "3.4: the first frame is not SETTINGS")


def on_first_settings(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """The first frame of all."""
    if flags & frames.ACK:
        not_settings(state, flags, stream_id, data, begin, end)
    state.expects = ANY
    on_settings(state, flags, stream_id, data, begin, end)


def on_settings(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.5: the peer's settings, or its word that ours hold."""
    if stream_id != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.5: SETTINGS on a stream")
    if flags & frames.ACK:
        _on_settings_ack(state, end - begin)
        return
    grown = state.peer.update(data, begin, end, by_server=state.client)
    state.budget.spend(ANSWERED + (len(state.streams) // STREAMS_A_GLITCH if grown else 0))
    state.sender.control(frames.SETTINGS_ACK)
    state.events.append(SettingsChanged())
    if grown:
        # Over a copy: what waited may be sent to its end, which closes streams.
        for stream in list(state.streams.values()):
            stream.send_window += grown
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.9.2: a window past 2^31-1")
            if grown > 0:
                _flush(state, stream)


def _on_settings_ack(state: State, length: int) -> None:
    if length:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.5: an acknowledgement with settings")
    if state.settings_unanswered == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.5.3: nothing to acknowledge")
    state.settings_unanswered -= 1
    # From here on the peer keeps to our window, which may be smaller than what it had before.
    shrunk = state.stream_window - state.limits.stream_window_bytes
    if shrunk:
        state.stream_window -= shrunk
        for stream in state.streams.values():
            stream.receive_window -= shrunk


def on_ping(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.7: answered at once, or the answer to ours."""
    if stream_id != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.7: PING on a stream")
    if end - begin != 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.7: PING is eight bytes")
    if not flags & frames.ACK:
        state.budget.spend(GLITCH + 1)
        state.sender.control(frames.ping(data[begin:end], ack=True))
    elif state.pings_out:
        state.pings_out -= 1
        state.events.append(PingAnswered(data[begin:end]))
    else:
        state.budget.spend(GLITCH)


def on_goaway(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.8: streams of ours above the last that the peer takes never were, and may be tried elsewhere."""
    if stream_id != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.8: GOAWAY on a stream")
    if end - begin < 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.8: GOAWAY is at least eight bytes")
    state.budget.spend(ANSWERED)
    last = _number(data, begin) & frames.MAX_STREAM_ID
    code = _number(data, begin + 4)
    if last < state.peer_gone_at:
        state.peer_gone_at = last
        for refused in [number for number in state.streams if number > last and bool(number & 1) == state.client]:
            state.drop(refused)
            state.remember_reset(refused)
            state.events.append(StreamReset(refused, ErrorCode.REFUSED_STREAM, remote=True, text="6.8: not taken"))
    state.events.append(GoingAway(last, code, data[begin + 8 : end]))


def on_window_update(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.9: the peer takes more, of one stream or of all."""
    if end - begin != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.9: WINDOW_UPDATE is four bytes")
    increment = _number(data, begin) & frames.MAX_WINDOW
    sender = state.sender
    state.budget.spend(GLITCH)
    if stream_id == 0:
        if increment == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.9: an increment of zero")
        if not sender.widen(increment):
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: a window past 2^31-1")
        while (stream := sender.next_waiting()) is not None:
            _flush(state, stream)
        if sender.window <= 0 and increment < DRIBBLE_BYTES:
            state.budget.spend(ANSWERED)
        return
    stream = state.streams.get(stream_id)
    if stream is None:
        if state.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.1: WINDOW_UPDATE on an idle stream")
        return
    if increment == 0:
        raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "6.9: an increment of zero")
    stream.send_window += increment
    if stream.send_window > frames.MAX_WINDOW:
        raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: a window past 2^31-1")
    if not _flush(state, stream) and increment < DRIBBLE_BYTES:
        state.budget.spend(ANSWERED)


def _flush(state: State, stream: Stream) -> bool:
    """Send what waits for a window, and say whether all of it went. With that, a stream may be closed."""
    if stream.waiting is None:
        return True
    if not state.sender.flush(stream):
        return False
    state.events.append(WindowOpened(stream.stream_id))
    if stream.sending == ENDED and stream.receiving == ENDED:
        state.close(stream.stream_id)
    return True


def on_rst_stream(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.4: the peer ends a stream."""
    if stream_id == 0 or state.is_idle(stream_id):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.4: RST_STREAM on an idle stream")
    if end - begin != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.4: RST_STREAM is four bytes")
    state.budget.spend(GLITCH)
    if stream_id in state.streams and state.drop(stream_id):
        state.events.append(StreamReset(stream_id, _number(data, begin), remote=True))


def on_priority(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.3: checked, and otherwise ignored (5.3.2)."""
    state.budget.spend(GLITCH)
    if stream_id == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.3: PRIORITY on stream 0")
    if end - begin != 5:
        if state.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.3: PRIORITY is five bytes")
        raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "6.3: PRIORITY is five bytes")
    rule = broken_priority(stream_id, data, begin)
    if rule:
        if state.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, rule)
        raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, rule)


def broken_priority(stream_id: int, data: bytes, begin: int) -> str:
    """Which rule a priority breaks; none where it is the empty text."""
    depends_on = _number(data, begin) & frames.MAX_STREAM_ID
    return "5.3.1 of RFC 7540: a stream that depends on itself" if depends_on == stream_id else ""


def on_push_promise(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """8.4: a client says that it takes none, and a server may not be promised any."""
    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "8.4: we take no push")


def on_unknown(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """5.5: frames of other kinds are ignored."""
    state.budget.spend(GLITCH)


def not_continuation(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """Any other frame within a header block."""
    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.10: a frame within a header block")
