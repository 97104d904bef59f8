"""What calls are made of: DATA, HEADERS and CONTINUATION of the peer. Section numbers are those of RFC 9113."""

from __future__ import annotations

from typing import Final

import mesh.wire.frames as frames
from mesh.wire.budget import GLITCH
from mesh.wire.control import broken_priority
from mesh.wire.events import DataReceived, HeadReceived, TrailersReceived
from mesh.wire.faults import ConnectionFault, ErrorCode, StreamFault
from mesh.wire.headers import LONG_BLOCK
from mesh.wire.state import ANY, CONTINUATION_ONLY, Block, State
from mesh.wire.streams import BODY, ENDED, HEAD, Stream

__all__ = ["on_continuation", "on_data", "on_headers"]

COPIED_BYTES: Final = 8192
"""Data up to this size is copied out of what was read. A view of it would keep all that was read with it in memory."""
LATE_BYTES: Final = 1024
"""Data that comes after we reset its stream costs the peer something where it is in smaller pieces."""


def on_data(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.1: some bytes of a call."""
    length = end - begin
    state.receive_window -= length
    if state.receive_window < 0:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: more than the connection's window")
    if flags & frames.PADDED:
        begin, end = _unpadded(data, begin, end)
    stream = state.streams.get(stream_id)
    if stream is None or stream.receiving != BODY:
        state.acknowledge(length)  # it counted against the connection, and nobody will consume it
        _data_out_of_place(state, stream_id, stream, length)
        return
    stream.receive_window -= length
    size = end - begin
    finished = flags & frames.END_STREAM != 0
    if stream.receive_window < 0 and length:  # it may be below zero already, by our settings (6.9.2)
        state.acknowledge(length)
        raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: more than the stream's window")
    if stream.content_left >= 0:
        stream.content_left -= size
        if stream.content_left < 0 or (finished and stream.content_left):
            state.acknowledge(length)
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1.1: not the data that content-length says")
    if not size and not finished:
        state.acknowledge(length)
        state.acknowledge_stream(stream, length)
        state.budget.spend(GLITCH)  # CVE-2019-9518
        return
    piece = data[begin:end] if size <= COPIED_BYTES else memoryview(data)[begin:end]
    state.events.append(DataReceived(stream_id, piece, length, finished))
    if finished:
        state.received_end(stream)


def _data_out_of_place(state: State, stream_id: int, stream: Stream | None, length: int) -> None:
    if stream is not None and stream.receiving == HEAD:
        raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1: data before the head")
    if stream_id == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.1: DATA on stream 0")
    if stream is None:
        if state.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.1: DATA on an idle stream")
        if state.was_reset(stream_id):
            if length < LATE_BYTES:
                state.budget.spend(GLITCH)
            return
    raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "5.1: DATA on a stream that is closed")


def on_headers(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.2: a header block, or the beginning of one."""
    rule = ""
    if flags & (frames.PADDED | frames.HAS_PRIORITY):
        if flags & frames.PADDED:
            begin, end = _unpadded(data, begin, end)
        if flags & frames.HAS_PRIORITY:
            if end - begin < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.2: too short for its priority")
            rule = broken_priority(stream_id, data, begin)
            begin += 5
    if flags & frames.END_HEADERS:
        _on_block(state, flags, stream_id, data[begin:end], rule)
    elif stream_id == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.2: HEADERS on stream 0")
    elif end - begin > state.limits.max_header_bytes:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, LONG_BLOCK)
    else:
        state.block = Block(flags, stream_id, data[begin:end], rule)
        state.expects = CONTINUATION_ONLY


def on_continuation(state: State, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
    """6.10: more of a header block."""
    block = state.block
    if block is None or block.stream_id != stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.10: CONTINUATION of no header block")
    limits = state.limits
    if block.size + end - begin > limits.max_header_bytes or len(block.pieces) >= limits.max_headers_frames:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, LONG_BLOCK)
    block.pieces.append(data[begin:end])
    block.size += end - begin
    if flags & frames.END_HEADERS:
        state.block = None
        state.expects = ANY
        _on_block(state, block.flags, stream_id, b"".join(block.pieces), block.rule)


def _on_block(state: State, flags: int, stream_id: int, block: bytes, rule: str) -> None:
    """A whole header block. It is decoded in any case: the tables of both sides have to stay alike (4.3)."""
    stream = state.streams.get(stream_id)
    trailers = stream is not None and stream.receiving != HEAD
    headers, timeout = state.reader.read(block, trailers=trailers)
    if headers.price:
        state.budget.spend(headers.price)
    if stream is None:
        stream = _head_without_stream(state, stream_id)
        if stream is None:
            return
    elif stream.receiving == ENDED:
        raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "5.1: HEADERS on a half-closed stream")
    if rule or headers.wrong:
        raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, rule or headers.wrong)
    finished = flags & frames.END_STREAM != 0
    if trailers:
        if not finished:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1: trailers that end nothing")
        if stream.content_left > 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1.1: less data than content-length says")
        state.events.append(TrailersReceived(stream_id, headers))
        state.received_end(stream)
        return
    if headers.interim:
        if finished:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1: an interim response that ends")
        state.budget.spend(GLITCH)
        return
    if headers.content_length >= 0:
        if finished and headers.content_length and not headers.bodiless:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1.1: less data than content-length says")
        stream.content_left = headers.content_length
    state.events.append(HeadReceived(stream_id, headers, timeout, finished))
    if finished:
        state.received_end(stream)
    else:
        stream.receiving = BODY


def _head_without_stream(state: State, stream_id: int) -> Stream | None:
    """A stream that the peer opens; None where it is to be ignored."""
    if not state.client and stream_id & 1 and stream_id > state.highest_remote:
        return state.open_remote(stream_id)
    if stream_id & 1 == 0 or (state.client and state.is_idle(stream_id)) or state.was_skipped(stream_id):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.1.1: a stream that the peer may not open")
    if not state.was_reset(stream_id):
        raise ConnectionFault(ErrorCode.STREAM_CLOSED, "5.1: HEADERS on a closed stream")
    state.budget.spend(GLITCH)
    return None


def _unpadded(data: bytes, begin: int, end: int) -> tuple[int, int]:
    """What is left of a padded frame (6.1)."""
    if begin == end:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.1: too short for its padding")
    if data[begin] >= end - begin:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.1: padding as long as the frame")
    return begin + 1, end - data[begin]
