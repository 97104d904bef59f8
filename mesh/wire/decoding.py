"""`Decoder`: header blocks to fields (RFC 7541), for one direction of one connection.

The `hpack` package has the tables and the Huffman code; its own decoder is an order of magnitude slower than this one
and is what this one is tested against. Section numbers are those of RFC 7541.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from mesh.wire.fields import Field

__all__ = ["BlockTooLong", "Decoder", "NotHpack"]

TABLE_BYTES: Final = 4096
"""What the dynamic table may hold: the default of SETTINGS_HEADER_TABLE_SIZE, which we do not change."""
MOST_UPDATES: Final = 16
"""Most updates of the table's size in one block. Two are all that makes sense (4.2), but some encoders tell of each."""
_STATIC: Final[Sequence[Field]] = (
    (b"", b""),
    *((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE),
)
_DYNAMIC: Final = len(_STATIC)
"""The number of the newest entry of the dynamic table."""


class NotHpack(Exception):
    """A block that cannot be decoded, and after which none can be."""


class BlockTooLong(Exception):
    """A block whose list is longer than any that is taken."""


class Decoder:
    """The state of one direction.

    Args:
        max_list_bytes: Longest list, counted as in RFC 9113, 6.5.2, that is decoded to its end.
    """

    __slots__ = ("_entries", "_limit", "_max_list_bytes", "_size", "changed")

    def __init__(self, max_list_bytes: int) -> None:
        self._entries: list[Field] = []
        """The dynamic table, its newest entry last."""
        self._size = 0
        self._limit = TABLE_BYTES
        self._max_list_bytes = max_list_bytes
        self.changed = False
        """Whether the last block changed what later ones mean."""

    def decode(self, block: bytes) -> tuple[Field, ...]:
        """The fields of one block.

        Raises:
            NotHpack: It breaks the format.
            BlockTooLong: Its list is too long.
        """
        self.changed = False
        try:
            return self._decode(block)
        except IndexError:
            raise NotHpack("5: a block that is cut off") from None
        except HPACKDecodingError:
            raise NotHpack("5.2: padding or the end of string within a Huffman code") from None

    def _decode(self, block: bytes) -> tuple[Field, ...]:
        fields: list[Field] = []
        room = self._max_list_bytes
        position = updates = 0
        end = len(block)
        while position < end:
            first = block[position]
            if first >= 0x80:  # 6.1: indexed
                index, position = _integer(block, position, 0x7F)
                field = self._entry(index)
            elif first >= 0x40 or first < 0x20:  # 6.2: literal, for the table or not
                index, position = _integer(block, position, 0x3F if first >= 0x40 else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                field = (name, value)
                if first >= 0x40:
                    self._add(field)
            else:  # 6.3: size of the table
                updates += 1
                if fields or updates > MOST_UPDATES:
                    raise NotHpack("4.2: a size update that does not begin the block, or one of many")
                limit, position = _integer(block, position, 0x1F)
                self._resize(limit)
                continue
            room -= len(field[0]) + len(field[1]) + 32
            if room < 0:
                raise BlockTooLong
            fields.append(field)
        return tuple(fields)

    def _entry(self, index: int) -> Field:
        """2.3.3: one address space for both tables."""
        if index < _DYNAMIC:
            if index == 0:
                raise NotHpack("6.1: index 0")
            return _STATIC[index]
        if index - _DYNAMIC >= len(self._entries):
            raise NotHpack("2.3.3: an index beyond the tables")
        return self._entries[_DYNAMIC - 1 - index]

    def _add(self, field: Field) -> None:
        """4.4: a new entry; the oldest make room for it, and one that is larger than the table empties it."""
        size = len(field[0]) + len(field[1]) + 32
        if size > self._limit and not self._entries:
            return
        self.changed = True
        self._evict(self._limit - size)
        if size <= self._limit:
            self._entries.append(field)
            self._size += size

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise NotHpack("6.3: a table larger than we allow")
        if limit != self._limit:
            self._limit = limit
            self.changed = True
            self._evict(limit)

    def _evict(self, room: int) -> None:
        """4.3: the oldest entries go until the rest fits."""
        gone = 0
        while self._size > max(room, 0):
            name, value = self._entries[gone]
            self._size -= len(name) + len(value) + 32
            gone += 1
        del self._entries[:gone]


def _integer(block: bytes, position: int, most: int) -> tuple[int, int]:
    """5.1: an integer behind the bits of `most`, and where it ends. Past 28 bits it is refused."""
    value = block[position] & most
    position += 1
    if value < most:
        return value, position
    for shift in (0, 7, 14, 21):
        more = block[position]
        position += 1
        value += (more & 0x7F) << shift
        if more < 0x80:
            return value, position
    raise NotHpack("5.1: an integer that is too long")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """5.2: a string, and where it ends."""
    coded = block[position] >= 0x80
    length, position = _integer(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise NotHpack("5.2: a string that is cut off")
    text = block[position:end]
    return (decode_huffman(text) if coded else text), end
