"""Fuzz the cores of the wire with atheris (libFuzzer): `make fuzz`, or with any option of libFuzzer.

    .venv/fuzz/bin/python tests/fuzz/fuzz_wire.py -max_total_time=600

The first byte chooses the role, and whether the rest is bytes as they are or frames whose lengths are right. What has
to hold is said in `tests/unit/wire/core/oracle.py`. What it finds is written to `crash-*` in the working directory;
give it such a file as argument to see that again.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

# It has no types, and is not installed where types are checked.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mesh.wire", "hpack"]):
    from mesh.wire.messages import MessageError, MessageReader
    from tests.unit.wire.core import given
    from tests.unit.wire.core.oracle import drive, framed
    from tests.unit.wire.core.recorded import record

PLAIN, HELLO, CLIENT, MESSAGES = 1, 2, 4, 8
"""Bits of the first byte."""


def one_input(data: bytes) -> None:
    """One life of a connection, or of a stream's messages."""
    first, rest = data[0] if data else 0, data[1:]
    if first & MESSAGES:
        messages(rest)
        return
    if not first & PLAIN:
        head = 1 + (rest[0] % 32 if rest else 0)
        rest = rest[:head] + framed(rest[head:])
    drive(rest, client=bool(first & CLIENT), hello=bool(first & HELLO))


def messages(data: bytes) -> None:
    """A stream of messages, cut anywhere, compressed or not."""
    step = 1 + (data[0] if data else 0)
    reader = MessageReader(1000, (b"identity", b"gzip", b"deflate")[step % 3])
    try:
        for start in range(1, len(data), step):
            reader.feed(data[start : start + step])
            assert reader.held_bytes <= len(data)
            if step & 4:
                while reader:
                    assert len(reader.take()) <= 1000
    except MessageError:
        pass


def seeds(folder: Path) -> None:
    """What real peers said, and a call of our own making."""
    said = asyncio.run(record())
    plain = [(PLAIN, said.by_client), (PLAIN | CLIENT, said.by_server)]
    hello = [(PLAIN | HELLO, given.headers(1) + given.data(1, b"\0\0\0\0\1x", end=True) + given.ping())]
    for number, (first, data) in enumerate(plain + hello):
        (folder / str(number)).write_bytes(bytes((first, 5)) + data)


def main(arguments: list[str]) -> None:
    """Fuzz until told otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        if not any(Path(one).exists() for one in arguments[1:]):
            seeds(Path(folder))
            arguments = [*arguments, folder]
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
