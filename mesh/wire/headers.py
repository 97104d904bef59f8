"""HPACK for one connection (RFC 7541), and the rules of RFC 9113 about what a header list may hold.

Reading: a block that came before costs one dictionary look-up. What a block means depends on the dynamic table, so all
that is remembered is forgotten when a block changes the table; peers that repeat themselves soon stop changing it. gRPC
puts the time left into a header of its own, different in every call: where that field stands last and in plain form,
the block before it is looked up and the field read by hand.

Writing: no dynamic table. Every block means the same whenever it is sent, so blocks can be made once and kept, and the
far side can remember them in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import Decoder
from hpack.table import HeaderTable

from mesh.wire.faults import ConnectionFault, ErrorCode
from mesh.wire.fields import Field, broken_head, broken_trailers
from mesh.wire.limits import WireLimits

__all__ = ["NO_TABLE", "HeaderReader", "Headers", "encode_block", "encode_field"]

NO_TABLE = b"\x20"
"""A dynamic table of size zero (RFC 7541, 6.3): what our first block on a connection begins with."""
TIMEOUT_FIELD = b"\x00\x0cgrpc-timeout"
"""A literal without indexing, its name not Huffman coded (6.2.2): how `encode_block` writes this field."""


class Headers:
    """One decoded header list. Shared by every call that sends the same block: never changed.

    `memo` is for whoever reads the list: what was made of it the first time need not be made again.
    """

    __slots__ = ("fields", "memo", "oversized", "wrong")

    def __init__(self, fields: tuple[Field, ...], *, wrong: str = "", oversized: bool = False) -> None:
        self.fields = fields
        self.wrong = wrong
        """Which rule of RFC 9113, section 8, the list breaks; empty where it breaks none."""
        self.oversized = oversized
        """Whether the list is longer than we take from one call."""
        self.memo: Any = None

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, or None."""
        for field, value in self.fields:
            if field == name:
                return value
        return None


class _WatchedTable(HeaderTable):
    """The dynamic table, which tells when it changed."""

    changed = False

    def add(self, name: bytes, value: bytes) -> None:
        self.changed = True
        super().add(name, value)

    @HeaderTable.maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changed = True
        HeaderTable.maxsize.fset(self, newmax)  # pyright: ignore[reportOptionalCall]


class HeaderReader:
    """Turns the header blocks of one connection into header lists.

    Args:
        limits: Bounds of the connection.
        requests: Whether the lists are requests (read by a server) or responses.
    """

    def __init__(self, limits: WireLimits, *, requests: bool) -> None:
        self._decoder = Decoder(max_header_list_size=limits.max_header_bytes)
        self._table = _WatchedTable()
        self._decoder.header_table = self._table
        self._remembered: dict[tuple[bytes, bool], Headers] = {}
        self._limits = limits
        self._requests = requests

    def read(self, block: bytes, *, trailers: bool) -> tuple[Headers, bytes | None]:
        """The list that a block stands for, and the value of a `grpc-timeout` that was read by hand.

        Raises:
            ConnectionFault: The block cannot be decoded, so no later one could be.
        """
        found = self._remembered.get((block, trailers))
        if found is not None:
            return found, None
        before, timeout = _split_timeout(block)
        if timeout is not None:
            found = self._remembered.get((before, trailers))
            if found is not None:
                return found, timeout
        fields = self._decode(block)
        if timeout is None or not fields or fields[-1] != (b"grpc-timeout", timeout):
            return self._made(block, fields, trailers), None
        # The field stands last and was written in just these bytes, so what is before it is a whole block.
        return self._made(before, fields[:-1], trailers), timeout

    def _decode(self, block: bytes) -> tuple[Field, ...]:
        self._table.changed = False
        try:
            decoded: Iterable[Any] = self._decoder.decode(block, raw=True)
            return tuple((bytes(name), bytes(value)) for name, value in decoded)
        except OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header list past any bound") from None
        except (HPACKError, IndexError, ValueError):
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block that is no HPACK") from None

    def _made(self, block: bytes, fields: tuple[Field, ...], trailers: bool) -> Headers:
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        rule = broken_trailers(fields) if trailers else broken_head(fields, requests=self._requests)
        made = Headers(fields, wrong=rule, oversized=size > self._limits.max_header_list_bytes)
        if self._table.changed:
            self._remembered.clear()
        else:
            if len(self._remembered) >= self._limits.remembered_blocks:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[block, trailers] = made
        return made


def _split_timeout(block: bytes) -> tuple[bytes, bytes | None]:
    """A block that ends in a plain `grpc-timeout`: what is before the field, and its value; None where it has none."""
    before, field, after = block.rpartition(TIMEOUT_FIELD)
    if field and 1 < len(after) < 12 and after[0] == len(after) - 1:
        return before, after[1:]
    return block, None


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
