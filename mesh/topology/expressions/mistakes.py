"""What is wrong with an expression, and where in its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.errors import SetupError

__all__ = ["ExpressionError", "Mistake", "Span", "pointed"]

Span = tuple[int, int]
"""The first character of a part of a text, from 0, and the one after its last."""

_WIDEST = 100
"""Columns of a line that are shown around a mistake."""
_BEFORE = 60
"""Of these, at most so many before it."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing that is wrong, in one line, and where."""

    start: int
    """The first character that is wrong, from 0 in the expression as it was given."""
    end: int
    """The one after the last, past `start` even where nothing stands."""
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.hint})" if self.hint else self.text


class ExpressionError(SetupError):
    """An expression that says nothing, or nothing that fits its graph.

    `mistakes` holds every one that was found, in the order of the text: one where it cannot be read, perhaps more where
    it does not fit.
    """

    def __init__(self, expression: str, mistakes: Iterable[Mistake]) -> None:
        self.expression = expression
        self.mistakes = tuple(sorted(set(mistakes)))
        told = ("\n".join((f"error: {one}", *pointed(expression, one))) for one in self.mistakes)
        super().__init__("\n".join(told))


def pointed(expression: str, mistake: Mistake) -> tuple[str, str]:
    """Two lines for a terminal: the line of the expression that is wrong, and carets under the mistake.

    A long line is cut around the mistake. What no terminal shows in place is shown as `?`.
    """
    start = min(mistake.start, len(expression))
    first = 1 + max(expression.rfind(end, 0, start) for end in "\r\n")
    ends = [at for at in (expression.find(end, start) for end in "\r\n") if at >= 0]
    last = min(ends, default=len(expression))
    line, at, until = expression[first:last], start - first, min(mistake.end, last) - first
    if len(line) > _WIDEST:
        skipped = max(0, min(at - _BEFORE, len(line) - _WIDEST))
        more = len(line) > skipped + _WIDEST
        line = ("..." if skipped else "") + line[skipped : skipped + _WIDEST]
        shift = skipped - (3 if skipped else 0)
        at, until = at - shift, min(until - shift, len(line))
        line += "..." if more else ""
    line = "".join(map(_visible, line))
    carets = "^" * max(1, _width(line[at:until]))
    return line, " " * _width(line[:at]) + carets


def _visible(character: str) -> str:
    return character if character.isprintable() else " " if character == "\t" else "?"


def _width(text: str) -> int:
    """The columns of a terminal that a text takes: two for a wide character, none for one that joins the last."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
