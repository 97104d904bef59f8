"""Plain values as bytes, so that two values have the same bytes only where they are the same.

Every value says its kind and its length before its content, so nothing can be taken for anything else when values stand
side by side: `["ab", "c"]` and `["a", "bc"]` differ, as do 1, 1.0, True and "1".

| kind | bytes |
|---|---|
| None, False, True | `N`, `f`, `t` |
| whole number | `i`, length, decimal digits |
| float | `d`, IEEE 754 double, big-endian: 0.0 and -0.0 differ, a NaN equals itself |
| text | `s`, length, UTF-8 (lone surrogates as they are) |
| bytes | `b`, length, content |
| list, tuple | `l`, count, items |
| mapping with text keys | `m`, count, keys and values in the order of the keys |

Lengths and counts are unsigned 64-bit numbers, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, cast

from mesh.errors import SetupError

__all__ = ["canonical"]

_MAX_DEPTH = 64
_LENGTH = struct.Struct(">cQ")
_DOUBLE = struct.Struct(">cd")


def canonical(value: object) -> bytes:
    """The bytes that stand for a plain value.

    Raises:
        SetupError: There is something in it that the table above does not have, or more than 64 levels of it.
    """
    parts: list[bytes] = []
    _write(value, parts, 0)
    return b"".join(parts)


def _write(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise SetupError(f"a value of more than {_MAX_DEPTH} levels cannot be part of a cache key")
    match value:
        case None:
            parts.append(b"N")
        case bool():
            parts.append(b"t" if value else b"f")
        case int():
            _sized(b"i", b"%d" % value, parts)
        case float():
            parts.append(_DOUBLE.pack(b"d", value))
        case str():
            _sized(b"s", value.encode(errors="surrogatepass"), parts)
        case bytes():
            _sized(b"b", value, parts)
        case list() | tuple():
            items = cast("list[object]", value)
            parts.append(_LENGTH.pack(b"l", len(items)))
            for item in items:
                _write(item, parts, depth + 1)
        case Mapping():
            _mapping(cast("Mapping[object, object]", value), parts, depth)
        case _:
            raise SetupError(f"a {type(value).__name__} cannot be part of a cache key: {value!r:.100}")


def _mapping(value: Mapping[object, object], parts: list[bytes], depth: int) -> None:
    if not all(isinstance(key, str) for key in value):
        raise SetupError(f"a mapping with keys other than texts cannot be part of a cache key: {value!r:.100}")
    keys = cast("list[str]", list(value))
    parts.append(_LENGTH.pack(b"m", len(keys)))
    for key in sorted(keys):
        _sized(b"s", key.encode(errors="surrogatepass"), parts)
        _write(value[key], parts, depth + 1)


def _sized(kind: bytes, content: bytes, parts: list[bytes]) -> None:
    parts.append(_LENGTH.pack(kind, len(content)))
    parts.append(content)
