"""Whole calls at once: what most of the bytes of a busy connection are, read without a step for each frame.

A request that is a header block which came before and one frame with one message is one event, and so is a response
that is two such blocks around such a frame. Whatever is not exactly of that form, or would break a rule or a bound, is
left to where all else is read, at the frame with which it begins: here nothing is refused and nothing raises. So what
is told is the same both ways, but for how many events tell it.

Here alone the core knows something of gRPC: the five bytes before a message. Section numbers are those of RFC 9113.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import mesh.wire.frames as frames
from mesh.wire.events import RequestReceived, ResponseReceived
from mesh.wire.state import State
from mesh.wire.streams import ENDED, HEAD, Stream

__all__ = ["Joiner", "read_requests", "read_responses"]

Joiner = Callable[[State, bytes, int], int]
"""Reads whole calls from a place on, where a frame begins and any may come; returns the place where it found none."""

_MESSAGE: Final = struct.Struct(">IBIBI")
"""The start of a frame with data, and the prefix of its message: whether it is compressed, and its length."""
_LAST_BLOCK: Final = frames.END_HEADERS | frames.END_STREAM


def read_requests(state: State, data: bytes, position: int) -> int:
    """Requests of new streams, each the next in number: HEADERS, then DATA with the end."""
    if state.gone_at != frames.MAX_STREAM_ID:
        return position
    limits = state.limits
    reader = state.reader
    heads = reader.heads
    streams = state.streams
    tell = state.events.append
    unpack, unpack_message = frames.START.unpack_from, _MESSAGE.unpack_from
    send_window, stream_window = state.peer.initial_window, state.stream_window
    window = state.receive_window
    before = highest = state.highest_remote
    # 5.1.2: those beyond are refused one by one.
    last = highest + 2 * (limits.max_concurrent_streams - state.remote_open - state.held)
    final = len(data) - _MESSAGE.size
    while highest < last and position < final:
        kind, flags, stream_id = unpack(data, position)
        begin = position + 9
        middle = begin + (kind >> 8)
        if kind & 0xFF != frames.HEADERS or flags != frames.END_HEADERS or stream_id != highest + 2 or middle > final:
            break
        kind, flags, same, squeezed, size = unpack_message(data, middle)
        length = kind >> 8
        message = middle + _MESSAGE.size
        end = message + size
        if (
            kind & 0xFF != frames.DATA
            or flags != frames.END_STREAM
            or same != stream_id
            or squeezed
            or length != size + frames.PREFIX_SIZE
            or end > len(data)
            or end - position > limits.max_frame_bytes
            or length > window
            or length > stream_window
        ):
            break
        block = data[begin:middle]
        headers = heads.get(block)
        timeout = None
        if headers is None:
            timed = reader.timed(block)
            if timed is None:
                break
            headers, timeout = timed
        if not headers.usual:
            break
        stream = streams[stream_id] = Stream(stream_id, send_window, stream_window - length)
        stream.receiving = ENDED
        tell(RequestReceived(stream_id, headers, timeout, data[message:end]))
        window -= length
        highest = stream_id
        position = end
    opened = (highest - before) >> 1
    state.receive_window = window
    state.highest_remote = highest
    state.remote_open += opened
    state.joined += opened
    return position


def read_responses(state: State, data: bytes, position: int) -> int:
    """Responses to requests that are whole: HEADERS, DATA, HEADERS with the end. Their streams are closed by that."""
    reader = state.reader
    heads, endings = reader.heads, reader.trailers
    streams = state.streams
    tell = state.events.append
    unpack, unpack_message = frames.START.unpack_from, _MESSAGE.unpack_from
    longest = state.limits.max_frame_bytes
    window = state.receive_window
    final = len(data) - _MESSAGE.size - frames.START.size
    while position < final:
        kind, flags, stream_id = unpack(data, position)
        middle = position + 9 + (kind >> 8)
        if kind & 0xFF != frames.HEADERS or flags != frames.END_HEADERS or middle > final:
            break
        stream = streams.get(stream_id)
        if stream is None or stream.receiving != HEAD or stream.sending != ENDED or stream.waiting is not None:
            break
        kind, flags, same, squeezed, size = unpack_message(data, middle)
        length = kind >> 8
        message = middle + _MESSAGE.size
        after = message + size
        if (
            kind & 0xFF != frames.DATA
            or flags
            or same != stream_id
            or squeezed
            or length != size + frames.PREFIX_SIZE
            or length > window
            or length > stream.receive_window
            or after + 9 > len(data)
        ):
            break
        kind, flags, same = unpack(data, after)
        end = after + 9 + (kind >> 8)
        if (
            kind & 0xFF != frames.HEADERS
            or flags != _LAST_BLOCK
            or same != stream_id
            or end > len(data)
            or end - position > longest
        ):
            break
        head = heads.get(data[position + 9 : middle])
        trailers = endings.get(data[after + 9 : end])
        if head is None or trailers is None or not head.usual or not trailers.usual:
            break
        del streams[stream_id]
        tell(ResponseReceived(stream_id, head, data[message:after], trailers))
        state.joined += 2
        window -= length
        position = end
    state.receive_window = window
    return position
