"""Writes ONNX files field by field, so that tests can make models that no exporter would, without the `onnx` package.

Numbers are those of onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FLOAT, INT64, STRING, BOOL, BFLOAT16 = 1, 7, 8, 9, 16

Shape = Sequence[int | str | None] | None


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def tensor_type(element: int, shape: Shape) -> bytes:
    dims: list[tuple[int, bytes]] = []
    for size in () if shape is None else shape:
        inside = b"" if size is None else message((1, size) if isinstance(size, int) else (2, size))
        dims.append((1, inside))
    parts: list[tuple[int, int | str | bytes]] = [(1, element)]
    if shape is not None:
        parts.append((2, message(*dims)))
    return message((1, message(*parts)))


def sequence_type(element: int) -> bytes:
    return message((4, message((1, tensor_type(element, None)))))


def value(name: str, type_: bytes) -> bytes:
    return message((1, name), (2, type_))


def attribute(name: str, *, i: int | None = None, graph: bytes | None = None) -> bytes:
    if graph is not None:
        return message((1, name), (6, graph), (20, 5))
    assert i is not None
    return message((1, name), (3, i), (20, 2))


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes) -> bytes:
    return message(
        *((1, name) for name in inputs),
        *((2, name) for name in outputs),
        (4, op),
        *((5, one) for one in attributes),
    )


def floats(name: str, values: Sequence[float]) -> bytes:
    return message((1, len(values)), (2, FLOAT), (8, name), (9, struct.pack(f"<{len(values)}f", *values)))


def int64s(name: str, values: Sequence[int], *, scalar: bool = False) -> bytes:
    dims = [] if scalar else [(1, len(values))]
    return message(*dims, (2, INT64), (8, name), (9, struct.pack(f"<{len(values)}q", *values)))


def external_floats(name: str, length: int, location: str) -> bytes:
    entries = (("location", location), ("offset", "0"), ("length", str(4 * length)))
    return message(
        (1, length), (2, FLOAT), (8, name), *((13, message((1, key), (2, text))) for key, text in entries), (14, 1)
    )


def graph(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], initializers: Sequence[bytes] = ()
) -> bytes:
    return message(
        *((1, one) for one in nodes),
        (2, "graph"),
        *((5, one) for one in initializers),
        *((11, one) for one in inputs),
        *((12, one) for one in outputs),
    )


def model(graph_: bytes) -> bytes:
    return message((1, 8), (7, graph_), (8, message((1, ""), (2, 18))))


def identity(element: int, shape: Shape, *, source: str = "x", target: str = "y") -> bytes:
    """A model of one node that gives what it takes."""
    given = value(source, tensor_type(element, shape))
    gives = value(target, tensor_type(element, shape))
    return model(graph([node("Identity", [source], [target])], [given], [gives]))


def adds_external(location: str) -> bytes:
    """`y = x + w`, where the three numbers of `w` lie in the file at `location`."""
    io = [value(name, tensor_type(FLOAT, ("N", 3))) for name in ("x", "y")]
    return model(graph([node("Add", ["x", "w"], ["y"])], io[:1], io[1:], [external_floats("w", 3, location)]))
