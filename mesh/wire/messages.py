"""Length-prefixed messages in a stream of data: five bytes (compressed or not, and the length), then the message."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections import deque

import grpc

from mesh.wire.frames import PREFIX_SIZE
from mesh.wire.streams import Buffer

__all__ = ["MessageError", "MessageReader", "encode_message", "prefix_of", "whole_message"]

_PREFIX = struct.Struct(">BI")
SMALL_BYTES = 1024
"""Data up to this size is gathered: an object for each byte of a message would take forty times its memory."""
GATHERED_BYTES = 16_384
LONG_BYTES = 256 << 10
"""From this length on a message is put together while it comes, and what was read is let go. Were it all kept to the
end, the most memory that it takes would be twice its length, which the allocator then fetches page by page and gives
back for every message: most of what a message of 3 MiB cost."""
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class MessageError(Exception):
    """The peer's message cannot be taken; the call ends with `code`."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def whole_message(data: Buffer, max_bytes: int) -> bytes | None:
    """The message that some data is, where it is just one whole plain message of at most `max_bytes` (-1: any)."""
    if len(data) < PREFIX_SIZE:
        return None
    squeezed, length = _PREFIX.unpack_from(data)
    if squeezed or length != len(data) - PREFIX_SIZE or 0 <= max_bytes < length:
        return None
    return bytes(data[PREFIX_SIZE:])


def encode_message(message: bytes, *, compress: bool = False) -> bytes:
    """A message behind its prefix."""
    if compress:
        message = gzip.compress(message, compresslevel=6, mtime=0)
    return _PREFIX.pack(compress, len(message)) + message


def prefix_of(size: int) -> bytes:
    """What stands before a message of a length that is not compressed."""
    return _PREFIX.pack(False, size)


class MessageReader:
    """Takes the messages of one stream out of its data.

    What is compressed stays so until it is taken: of a peer that sends little and means much (a bomb), one message at a
    time is unpacked.

    Args:
        max_bytes: Longest message, also after it was decompressed; -1 for the 4 GiB that a prefix can say.
        encoding: What `grpc-encoding` said: `identity`, `gzip` or `deflate`.
    """

    __slots__ = ("_encoding", "_have", "_long", "_max_bytes", "_messages", "_need", "_parts", "_squeezed", "held_bytes")

    def __init__(self, max_bytes: int, encoding: bytes = b"identity") -> None:
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._parts: list[Buffer | bytearray] = []
        self._long: io.BytesIO | None = None
        """A long message that is under way; then there are no parts."""
        self._have = 0
        self._need = -1
        """Length of the message that is under way; -1 while its prefix is."""
        self._squeezed = False
        self._messages: deque[tuple[bytes, bool]] = deque()
        """Whole messages, oldest first, and whether they are compressed."""
        self.held_bytes = 0
        """Bytes of messages that are held: those that are not whole, and those that nobody has taken yet."""

    def __len__(self) -> int:
        """How many whole messages wait to be taken."""
        return len(self._messages)

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not whole."""
        return self._have > 0 or self._need >= 0

    def take(self) -> bytes:
        """The oldest message, in plain form.

        Raises:
            IndexError: There is none.
            MessageError: It is too long when decompressed, or cannot be.
        """
        message, squeezed = self._messages.popleft()
        self.held_bytes -= len(message)
        return self._unsqueezed(message) if squeezed else message

    def clear(self) -> None:
        """Forget what is held."""
        self._messages.clear()
        self._parts.clear()
        self._long = None
        self._have = self.held_bytes = 0

    def feed(self, data: Buffer) -> None:
        """Take some data in.

        Raises:
            MessageError: A message is too long, or compressed in a way that was not announced or not known.
        """
        if self._need < 0 and self._have == 0 and (message := whole_message(data, self._max_bytes)) is not None:
            # By far the most common case: one whole uncompressed message in one frame.
            self._messages.append((message, False))
            self.held_bytes += len(message)
            return
        if self._long is not None:
            data = self._lengthened(self._long, data)
            if not data:
                return
        self._keep(data)
        while True:
            if self._need < 0:
                if self._have < PREFIX_SIZE:
                    return
                flag, self._need = _PREFIX.unpack(self._pop(PREFIX_SIZE))
                if flag > 1:
                    raise MessageError(grpc.StatusCode.INTERNAL, "a message with an unknown compression flag")
                self._squeezed = bool(flag)
                if flag and self._encoding not in _WINDOW_BITS:
                    text = "a compressed message where no compression was announced"
                    raise MessageError(grpc.StatusCode.INTERNAL, text)
                self._check(self._need)
            if self._have < self._need:
                if self._need >= LONG_BYTES:
                    self._long = io.BytesIO()
                    self._long.writelines(self._parts)
                    self._parts.clear()
                return
            message = self._pop(self._need)
            self.held_bytes += self._need
            self._need = -1
            self._messages.append((message, self._squeezed))

    def _lengthened(self, message: io.BytesIO, data: Buffer) -> Buffer:
        """Add some data to a long message; what is left of it belongs to the next one."""
        missing = self._need - self._have
        if len(data) < missing:
            half_was_there = self._have * 2 >= self._need
            self._have += len(data)
            self.held_bytes += len(data)
            message.write(data)
            if self._have * 2 >= self._need and not half_was_there:
                # Room for the rest, to the byte: left to itself it grows in many steps, and past the end.
                message.seek(self._need - 1)
                message.write(b"\0")
                message.seek(self._have)
            return b""
        view = memoryview(data)
        message.write(view[:missing])
        self.held_bytes += missing
        self._have = 0
        self._need = -1
        self._long = None
        self._messages.append((message.getvalue(), self._squeezed))
        return view[missing:]

    def _keep(self, data: Buffer) -> None:
        self._have += len(data)
        self.held_bytes += len(data)
        if len(data) > SMALL_BYTES:
            self._parts.append(data)
        elif self._parts and isinstance(last := self._parts[-1], bytearray) and len(last) < GATHERED_BYTES:
            last += data
        else:
            self._parts.append(bytearray(data))

    def _check(self, length: int) -> None:
        if 0 <= self._max_bytes < length:
            text = f"Received message larger than max ({length} vs. {self._max_bytes})"
            raise MessageError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _pop(self, count: int) -> bytes:
        """The next `count` bytes, in one piece."""
        taken: list[Buffer | bytearray] = []
        self._have -= count
        self.held_bytes -= count
        index = 0
        while count:
            part = self._parts[index]
            if len(part) <= count:
                taken.append(part)
                count -= len(part)
                index += 1
            else:
                taken.append(part[:count])
                self._parts[index] = part[count:]
                count = 0
        del self._parts[:index]
        return b"".join(taken)

    def _unsqueezed(self, message: bytes) -> bytes:
        machine = zlib.decompressobj(_WINDOW_BITS[self._encoding])
        # One byte more than is taken: enough to know that it is too long, whatever it would have grown to.
        bound = self._max_bytes + 1 if self._max_bytes >= 0 else 1 << 31
        try:
            plain = machine.decompress(message, bound)
        except zlib.error:
            raise MessageError(grpc.StatusCode.INTERNAL, "a compressed message that cannot be decompressed") from None
        self._check(len(plain))
        if not machine.eof:
            raise MessageError(grpc.StatusCode.INTERNAL, "a compressed message that is cut off")
        return plain
