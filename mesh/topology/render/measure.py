"""How wide a text is, near enough, where no font can be asked: the viewer chooses it."""

from __future__ import annotations

from unicodedata import combining, east_asian_width

__all__ = ["MONO", "SANS", "shortened", "width_of"]

SANS = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
MONO = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace'
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[]·- "), frozenset("mwMW@%…")


def width_of(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """Pixels that a text takes at a font size, by the widest of the fonts in common use."""
    return size * (1.12 if bold else 1.0) * sum(_ems(character, mono) for character in text)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; a longer one loses its middle, because names differ at the end as well."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def _ems(character: str, mono: bool) -> float:
    if combining(character):
        return 0.0
    if east_asian_width(character) in "WF":
        return 1.25
    if mono:
        return 0.605
    return 0.4 if character in _NARROW else 0.97 if character in _WIDE else 0.63
