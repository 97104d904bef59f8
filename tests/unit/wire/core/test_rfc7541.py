"""RFC 7541: what a header block may be."""

from __future__ import annotations

import pytest

from mesh.wire import frames
from mesh.wire.headers import encode_block, encode_field
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import REQUEST, ByHand, continuation, headers, settings
from tests.unit.wire.core.rules import COMPRESSION, Line, check, ends, fine

BLOCK = encode_block(REQUEST)
LIMITS = WireLimits(max_concurrent_streams=4, max_frame_bytes=16_384)


def block(tail: bytes) -> bytes:
    return headers(1, block=BLOCK + tail, end=True)


HPACK = [
    ends(COMPRESSION, "7541 2.3.3", "an index beyond the tables", block(b"\xbe")),
    ends(COMPRESSION, "7541 2.3.3", "the name of an index beyond the tables", block(b"\x7f\x00\x01x")),
    ends(COMPRESSION, "7541 2.3.3", "the same where nothing is added", block(b"\x0f\x2f\x01x")),
    fine(
        "7541 2.3.2",
        "the newest entry",
        headers(1, block=BLOCK + b"\x40\x01a\x01b"),
        headers(3, block=BLOCK + b"\xbe\x7e\x01c\xbe\xbf"),
    ),
    ends(
        COMPRESSION,
        "7541 2.3.2",
        "an entry that was evicted",
        headers(1, block=BLOCK + b"\x40\x01a\x01b"),
        headers(3, block=b"\x20\x3f\xe1\x1f" + BLOCK + b"\xbe"),
    ),
    ends(COMPRESSION, "7541 4.2", "a size update behind a field", block(b"\x20")),
    ends(COMPRESSION, "7541 4.2", "a size update between fields", headers(1, block=BLOCK[:1] + b"\x20" + BLOCK[1:])),
    fine("7541 4.2", "two size updates", headers(1, block=b"\x20\x3f\xe1\x1f" + BLOCK)),
    fine(
        "7541 4.2",
        "a size update alone in a fragment",
        headers(1, block=b"\x3f\xe1\x1f", more=True),
        continuation(1, BLOCK),
    ),
    ends(COMPRESSION, "7541 4.2", "size updates without end", headers(1, block=b"\x20" * 1000 + BLOCK)),
    fine(
        "7541 4.4", "an entry larger than the table", headers(1, block=b"\x20" + BLOCK + b"\x40\x01a\x01b"), headers(3)
    ),
    ends(
        COMPRESSION,
        "7541 4.4",
        "that entry afterwards",
        headers(1, block=b"\x20" + BLOCK + b"\x40\x01a\x01b"),
        headers(3, block=BLOCK + b"\xbe"),
    ),
    ends(COMPRESSION, "7541 5.1", "an integer that overflows", block(b"\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")),
    ends(COMPRESSION, "7541 5.1", "an integer that is cut off", block(b"\xff\x80")),
    ends(COMPRESSION, "7541 5.1", "an integer of too many zeros", block(b"\xff" + b"\x80" * 20 + b"\x00")),
    ends(COMPRESSION, "7541 5.2", "a string that is cut off", block(b"\x00\x01a\x05abcd")),
    ends(COMPRESSION, "7541 5.2", "a literal without value", block(b"\x00\x01a")),
    ends(COMPRESSION, "7541 5.2", "a literal without name", block(b"\x40")),
    fine("7541 5.2", "a Huffman code", block(b"\x00\x81\x1f\x81\x1f")),
    ends(COMPRESSION, "7541 5.2", "Huffman padding of eight bits", block(b"\x00\x82\x1f\xff\x81\x1f")),
    ends(COMPRESSION, "7541 5.2", "Huffman padding of zeros", block(b"\x00\x81\x18\x81\x1f")),
    ends(COMPRESSION, "7541 5.2", "the end of string in a Huffman code", block(b"\x00\x84\xff\xff\xff\xfc\x01a")),
    ends(COMPRESSION, "7541 5.2", "the end of string and a whole code", block(b"\x00\x01a\x85\x1f\xff\xff\xff\xff")),
    ends(COMPRESSION, "7541 6.1", "index 0", block(b"\x80")),
    fine("7541 6.2.2", "literals that are not added", block(encode_field(b"x-a", b"b") + b"\x0f\x02\x03abc")),
    fine("7541 6.2.3", "literals that are never added", block(b"\x10\x01a\x01b\x1f\x02\x03abc")),
    ends(COMPRESSION, "7541 6.3", "a table larger than we allow", headers(1, block=b"\x3f\xe2\x1f" + BLOCK)),
    fine("7541 6.3", "a table as large as we allow", headers(1, block=b"\x3f\xe1\x1f" + BLOCK)),
    fine(
        "7541 6.3",
        "whatever size the client's own table has",
        settings((frames.HEADER_TABLE_SIZE, 0), (frames.HEADER_TABLE_SIZE, 9999)),
        headers(1),
    ),
]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("line", HPACK, ids=str)
def test_a_server_keeps_the_rules_of_hpack(line: Line, step: int) -> None:
    check(ByHand(limits=LIMITS), line, step)
