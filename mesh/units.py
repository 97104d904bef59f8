"""Durations and sizes carry their units: `5ms`, `64MiB`.

YAML says `max_delay: 5ms`; Python says `max_delay_s = 0.005`. A bare number is refused, because nobody can tell
what it meant.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

__all__ = ["Duration", "Size", "format_duration", "format_size", "parse_duration", "parse_size"]

_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_QUANTITY = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s?([A-Za-z]{1,3})")


def _parse(text: object, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    matched = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if matched is None or matched[2] not in units:
        raise ValueError(f"{text!r} is not a {what}: write a number and a unit ({', '.join(units)}), as in {example}")
    return float(matched[1]) * units[matched[2]]


def parse_duration(text: object) -> float:
    """Seconds in a text such as `5ms`.

    Raises:
        ValueError: The text is not a number followed by us, ms, s, m, h or d.
    """
    return _parse(text, _DURATIONS, "duration", "5ms")


def parse_size(text: object) -> int:
    """Bytes in a text such as `64MiB`.

    Raises:
        ValueError: The text is not a number followed by B, KiB, MiB, GiB, kB, MB or GB.
    """
    return int(_parse(text, _SIZES, "size", "64MiB"))


def format_duration(seconds: float) -> str:
    """The shortest exact-enough text: `5ms`, `1.5s`, `80us`; from an hour on as `90m`, `14d` or `3601s`."""
    if seconds >= 3600:
        whole = round(seconds)
        unit = next(unit for unit in ("d", "h", "m", "s") if whole % _DURATIONS[unit] == 0)
        return f"{whole / _DURATIONS[unit]:.0f}{unit}"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale or seconds == 0:
            return f"{seconds / scale:.4g}{unit}"
    return f"{seconds / 1e-6:.4g}us"


def format_size(count: int) -> str:
    """The shortest exact-enough text: `64MiB`, `1.5KiB`, `12B`."""
    for unit in ("GiB", "MiB", "KiB"):
        if count >= _SIZES[unit]:
            return f"{count / _SIZES[unit]:.4g}{unit}"
    return f"{count}B"


def _from_file(info: ValidationInfo) -> bool:
    # Python code gives plain seconds and bytes; a file has to name its units.
    return bool(info.context and info.context.get("from_file"))


def _duration(value: object, info: ValidationInfo) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and not _from_file(info):
        return float(value)
    return parse_duration(value)


def _size(value: object, info: ValidationInfo) -> object:
    return value if type(value) is int and not _from_file(info) else parse_size(value)


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s?(us|ms|s|m|h|d)$"}),
]
"""A pydantic field type: seconds in Python, text with a unit in a file (validation context `{"from_file": True}`)."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s?(B|KiB|MiB|GiB|kB|MB|GB)$"}),
]
"""A pydantic field type: text with a unit in a file, bytes in Python."""
