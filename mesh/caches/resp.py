"""RESP2, the protocol of Redis and Valkey (https://valkey.io/topics/protocol/): bytes to replies, commands to bytes.

No I/O. Every length is bounded before anything is kept for it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reply", "ReplyError", "ReplyReader", "RespError", "encode_command"]


class RespError(ConnectionError):
    """What came is no RESP2, or more than is taken: nothing after it can be understood."""


@dataclass(frozen=True, slots=True)
class ReplyError:
    """A command was refused."""

    text: str
    """The server's words, as in `OOM command not allowed when used memory > 'maxmemory'`; at most 200 characters."""


Reply = bytes | int | None | ReplyError | list["Reply"]
"""Simple and bulk strings are bytes."""

_MAX_LINE = 64 << 10
_MAX_ITEMS = 1 << 20
_MAX_DEPTH = 8
_END = b"\r\n"


def encode_command(*arguments: bytes) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts.append(b"$%d\r\n" % len(argument))
        parts.append(argument)
        parts.append(_END)
    return b"".join(parts)


class ReplyReader:
    """Takes bytes as they come, gives replies as they are whole.

    Args:
        max_bulk_bytes: The longest bulk string that is taken.
    """

    def __init__(self, max_bulk_bytes: int) -> None:
        self._max_bulk_bytes = max_bulk_bytes
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 1
        """Bytes without which there is nothing to do."""
        self._bulk = -1
        """Length of the bulk string whose content comes next; -1 where a line does."""
        self._open: list[tuple[int, list[Reply]]] = []
        """Arrays that are not whole yet, the outermost first: how many items they have in all, and those that came."""

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that these bytes complete.

        Raises:
            RespError: They make no sense. The reader is of no use from then on.
        """
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        text = b"".join(self._parts) if len(self._parts) > 1 else data
        replies: list[Reply] = []
        position = 0
        while True:
            end = self._bulk_end(text, position) if self._bulk >= 0 else self._line_end(text, position)
            if end < 0:
                break
            if self._bulk >= 0:
                self._push(text[position : end - 2], replies)
                self._bulk = -1
            else:
                self._read_line(text[position : end - 2], replies)
            position = end
        left = text[position:]
        self._parts = [left] if left else []
        self._have = len(left)
        return replies

    def _bulk_end(self, text: bytes, position: int) -> int:
        end = position + self._bulk + 2
        if end > len(text):
            self._need = end - position
            return -1
        if text[end - 2 : end] != _END:
            raise RespError("a bulk string is longer than it said")
        return end

    def _line_end(self, text: bytes, position: int) -> int:
        found = text.find(_END, position, position + _MAX_LINE)
        if found < 0:
            if len(text) - position >= _MAX_LINE:
                raise RespError(f"a line of more than {_MAX_LINE} bytes")
            self._need = len(text) - position + 1
            return -1
        return found + 2

    def _read_line(self, line: bytes, replies: list[Reply]) -> None:
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            length = _number(rest)
            if length > self._max_bulk_bytes:
                raise RespError(f"a value of {length} bytes, where at most {self._max_bulk_bytes} are taken")
            if length == -1:
                self._push(None, replies)
            else:
                self._bulk = _not_negative(length)
        elif kind == b"*":
            self._read_array(_number(rest), replies)
        elif kind == b"+":
            self._push(rest, replies)
        elif kind == b"-":
            self._push(ReplyError(rest[:200].decode(errors="replace")), replies)
        elif kind == b":":
            self._push(_number(rest), replies)
        else:
            raise RespError(f"a reply that begins with {line[:20]!r}")

    def _read_array(self, count: int, replies: list[Reply]) -> None:
        if count == -1:
            self._push(None, replies)
        elif count == 0:
            self._push([], replies)
        elif _not_negative(count) > _MAX_ITEMS or len(self._open) == _MAX_DEPTH:
            raise RespError(f"an array of {count} items on level {len(self._open)}")
        else:
            self._open.append((count, []))

    def _push(self, reply: Reply, replies: list[Reply]) -> None:
        while self._open:
            count, items = self._open[-1]
            items.append(reply)
            if len(items) < count:
                return
            self._open.pop()
            reply = items
        replies.append(reply)


def _number(text: bytes) -> int:
    # int() takes spaces, signs and underscores that no server sends.
    if not (text.isdigit() or (text[:1] == b"-" and text[1:].isdigit())) or len(text) > 20:
        raise RespError(f"{text[:20]!r} where a number has to be")
    return int(text)


def _not_negative(number: int) -> int:
    if number < 0:
        raise RespError(f"a length of {number}")
    return number
