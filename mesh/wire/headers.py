"""HPACK for one connection (RFC 7541), and the rules of RFC 9113 about what a header list may hold.

Reading: a block that came before costs one dictionary look-up. What a block means depends on the dynamic table, so all
that is remembered is forgotten when a block changes the table; peers that repeat themselves soon stop changing it. gRPC
puts the time left into a header of its own, different in every call: where that field stands last and in plain form,
the block before it is looked up and the field read by hand.

That is sound for this reason. A block is decoded from left to right, so where a block that was decoded whole is the
beginning of another one, the other one goes on with a new field exactly there; and what follows can only be read in one
way, byte for byte. The first time, when the block before the field was not seen alone, it is cut off where the field
must have begun: no other encoding of the same last field ends in the same bytes, since all of them are plain ASCII.

Writing: no dynamic table. Every block means the same whenever it is sent, so blocks can be made once and kept, and the
far side can remember them in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from hpack.table import HeaderTable

from mesh.wire.decoding import BlockTooLong, Decoder, NotHpack
from mesh.wire.faults import ConnectionFault, ErrorCode
from mesh.wire.fields import Field, broken_head, broken_trailers
from mesh.wire.limits import WireLimits

__all__ = ["LONG_BLOCK", "NO_TABLE", "HeaderReader", "Headers", "encode_block", "encode_field"]

LONG_BLOCK: Final = "a header block past any bound"
"""What a peer is told that sends one."""
NO_TABLE: Final = b"\x20"
"""A dynamic table of size zero (RFC 7541, 6.3): what our first block on a connection begins with."""
TIMEOUT_BYTES: Final = 24
"""The longest that the last field may be where it is a `grpc-timeout`."""
TIMEOUT_NAME_BYTES: Final = 15
"""What stands before its value."""
TIMED_BLOCKS: Final = 64
"""Blocks with a timeout that are remembered, each of at most so many bytes:"""
TIMED_BYTES: Final = 1024
# A literal without indexing, neither name nor value Huffman coded (6.2.2), as `encode_block` writes it.
_TIMEOUT = re.compile(rb"\x00\x0cgrpc-timeout(?P<size>[\x02-\x09])(?P<value>[0-9]{1,8}[HMSmun])\Z")
FIELDS_A_GLITCH: Final = 64
"""Fields of one block that are decoded for the price of one frame without effect; fewer are free."""
_FIELD_BYTES: Final = 160
"""Memory that one field takes beside its text, about."""


class Headers:
    """One decoded header list. Shared by every call that sends the same block: never changed.

    `memo` is for whoever reads the list: what was made of it the first time need not be made again.
    """

    __slots__ = ("bodiless", "content_length", "fields", "interim", "memo", "oversized", "price", "usual", "wrong")

    def __init__(self, fields: tuple[Field, ...], *, wrong: str = "", oversized: bool = False) -> None:
        self.fields = fields
        self.wrong = wrong
        """Which rule of RFC 9113, section 8, the list breaks; empty where it breaks none."""
        self.oversized = oversized
        """Whether the list is longer than we take from one call."""
        status = self.get(b":status") or b""
        self.interim = status[:1] == b"1"
        """Whether it is a response before the response (8.1)."""
        self.bodiless = status == b"304"
        """Whether content-length tells of data that does not follow (8.1.1)."""
        self.content_length = -1 if wrong else int(self.get(b"content-length") or -1)
        """Bytes of data that it promises; -1 where it promises nothing."""
        self.price = len(fields) // FIELDS_A_GLITCH
        """What its decoding costs the peer."""
        self.usual = not (wrong or oversized or self.interim or self.price) and self.content_length < 0
        """Whether there is nothing in it that has to be looked at before a call goes on."""
        self.memo: Any = None

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, or None."""
        for field, value in self.fields:
            if field == name:
                return value
        return None


class HeaderReader:
    """Turns the header blocks of one connection into header lists.

    Args:
        limits: Bounds of the connection.
        requests: Whether the lists are requests (read by a server) or responses.
    """

    __slots__ = ("_decoder", "_held_bytes", "_limits", "_requests", "_timed", "heads", "trailers")

    def __init__(self, limits: WireLimits, *, requests: bool) -> None:
        self._decoder = Decoder(limits.max_header_bytes)
        self.heads: dict[bytes, Headers] = {}
        """Lists that open a stream, by their blocks."""
        self.trailers: dict[bytes, Headers] = {}
        """Those that close one."""
        self._timed: dict[bytes, tuple[Headers, bytes]] = {}
        """What the last blocks with a `grpc-timeout` were: many clients send few different ones."""
        self._held_bytes = 0
        """Memory that the remembered lists take, about."""
        self._limits = limits
        self._requests = requests

    def read(self, block: bytes, *, trailers: bool) -> tuple[Headers, bytes | None]:
        """The list that a block stands for, and the value of a `grpc-timeout` that stood last in it and was taken out.

        Raises:
            ConnectionFault: The block cannot be decoded, so no later one could be.
        """
        remembered = self.trailers if trailers else self.heads
        found = remembered.get(block)
        if found is not None:
            return found, None
        timeout = None
        if self._requests and not trailers:
            timed = self.timed(block)
            if timed is not None:
                return timed
            timeout = _timeout_of(block)
        fields = self._decode(block)
        if timeout is not None:
            block, fields = block[: -len(timeout) - TIMEOUT_NAME_BYTES], fields[:-1]
        return self._made(block, fields, remembered), timeout

    def timed(self, block: bytes) -> tuple[Headers, bytes] | None:
        """The same for a request's block that is a remembered one and a `grpc-timeout` behind it; None for others."""
        known = self._timed.get(block)
        if known is not None:
            return known
        timeout = _timeout_of(block)
        if timeout is None:
            return None
        found = self.heads.get(block[: -len(timeout) - TIMEOUT_NAME_BYTES])
        if found is None:
            return None
        made = (found, timeout)
        if len(block) <= TIMED_BYTES:
            if len(self._timed) >= TIMED_BLOCKS:
                self._timed.clear()
            self._timed[block] = made
        return made

    def _decode(self, block: bytes) -> tuple[Field, ...]:
        if len(block) > self._limits.max_header_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, LONG_BLOCK)
        try:
            return self._decoder.decode(block)
        except BlockTooLong:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header list past any bound") from None
        except NotHpack as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"{error} (RFC 7541)") from None

    def _made(self, block: bytes, fields: tuple[Field, ...], remembered: dict[bytes, Headers]) -> Headers:
        size = sum([len(name) + len(value) + 32 for name, value in fields])
        trailers = remembered is self.trailers
        rule = broken_trailers(fields) if trailers else broken_head(fields, requests=self._requests)
        made = Headers(fields, wrong=rule, oversized=size > self._limits.max_header_list_bytes)
        if self._decoder.changed:
            self.heads.clear()
            self.trailers.clear()
            self._timed.clear()
            self._held_bytes = 0
        elif not rule and not made.oversized:
            self._remember(block, made, remembered)
        return made

    def _remember(self, block: bytes, made: Headers, remembered: dict[bytes, Headers]) -> None:
        limits = self._limits
        self._held_bytes += _memory_of(block, made)
        remembered[block] = made
        while len(self.heads) + len(self.trailers) > limits.remembered_blocks or (
            self._held_bytes > limits.remembered_bytes
        ):
            self._timed.clear()  # it keeps lists as well
            oldest_of = self.heads if len(self.heads) >= len(self.trailers) else self.trailers
            oldest = next(iter(oldest_of))
            self._held_bytes -= _memory_of(oldest, oldest_of.pop(oldest))


def _timeout_of(block: bytes) -> bytes | None:
    """The value of a `grpc-timeout` that stands last in a block and in plain form."""
    field = _TIMEOUT.search(block, max(len(block) - TIMEOUT_BYTES, 0))
    if field is None or field["size"][0] != len(field["value"]):
        return None
    return field["value"]


def _memory_of(block: bytes, headers: Headers) -> int:
    """About what a remembered list takes: its text may be shared with others, but need not be."""
    return len(block) + sum([len(name) + len(value) + _FIELD_BYTES for name, value in headers.fields])


def _integer(value: int, prefix_bits: int, flags: int) -> bytes:
    """An integer of RFC 7541, 5.1."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((flags | value,))
    made = bytearray((flags | most,))
    value -= most
    while value > 0x7F:
        made.append((value & 0x7F) | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


_STATIC: dict[Field, int] = {}
_STATIC_NAMES: dict[bytes, int] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, start=1):
    _STATIC.setdefault((_name, _value), _index)
    _STATIC_NAMES.setdefault(_name, _index)


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field, without dynamic table and Huffman coding: both cost more time than their bytes do here."""
    if index := _STATIC.get((name, value)):
        return _integer(index, 7, 0x80)
    named = _integer(_STATIC_NAMES[name], 4, 0) if name in _STATIC_NAMES else b"\x00" + _integer(len(name), 7, 0) + name
    return named + _integer(len(value), 7, 0) + value


def encode_block(fields: Iterable[Field]) -> bytes:
    """A header block that means the same on every connection."""
    return b"".join([encode_field(name, value) for name, value in fields])
