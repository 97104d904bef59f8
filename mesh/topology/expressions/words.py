"""The words of an expression: what may stand in its text at all, told before Python's parser sees it.

Python's parser takes more than this language has (powers, comments, text prefixes, escapes, assignments) and says less
of what is wrong. What passes here holds only names, decimal numbers, plain texts and the language's own signs.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mesh.topology.expressions.mistakes import ExpressionError, Mistake, Span

__all__ = ["EDGES", "MAX_BYTES", "MAX_DEPTH", "MAX_LITERALS", "PARAMETERS", "Word", "is_plain", "words"]

MAX_BYTES = 1024
"""Most bytes of an expression, in UTF-8."""
MAX_DEPTH = 32
"""Most levels of nesting."""
MAX_LITERALS = 100
"""Most numbers, texts and truths in one expression."""
EDGES = "edges"
"""`edges["node.tensor"]`: an edge of any name."""
PARAMETERS = "parameters"
"""`parameters.name` and `parameters["name"]`: a parameter of the request."""

_MOST = (1 << 64) - 1
_OPERATORS = frozenset({"and", "or", "not", "in"})
_TRUTHS = frozenset({"true", "false", "True", "False"})
_WORD = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<text>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    |(?P<foreign>\*\*|:=|&&|\|\||<<|>>|<>|->)
    |(?P<sign>//|<=|>=|==|!=|[-+*/%<>()\[\],:.])""",
    re.VERBOSE,
)
_INSTEAD = {
    "**": "there are no powers: multiply",
    "^": "there are no powers: multiply",
    "&": "write and",
    "&&": "write and",
    "|": "write or",
    "||": "write or",
    "!": "write not",
    "~": "write not",
    "=": "write == to compare",
    ":=": "write == to compare",
    "<>": "write !=",
    "#": "there are no comments here: write it as a comment of the file",
    "{": "a list of values is written in [ ]",
}
"""A sign that is not of the language -> what to write."""
_WORDS_INSTEAD = {"is": "write ==", "None": "what a caller does not send equals nothing", "null": "there is no null"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = frozenset("\\\"'nrt")
_CLOSES = {"(": ")", "[": "]"}
_BEGINS = frozenset({"(", "[", "-", "+", "not"})
"""What a value may begin with, other than a value."""
_MAY_END = {"(": ")", "[": "]:", ",": ")]:", ":": "],:"}
"""A sign -> the signs that may follow where a value could."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of an expression."""

    kind: str
    """`number`, `name`, `text` or `sign`."""
    text: str
    span: Span


def is_plain(name: str) -> bool:
    """Whether an edge or parameter can be written by its bare name, dots included."""
    parts = name.split(".")
    reserved = _TRUTHS | {EDGES, PARAMETERS}
    return parts[0] not in reserved and all(
        part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts
    )


def words(text: str) -> list[Word]:
    """Take an expression apart.

    Raises:
        ExpressionError: Something that is not of the language, a bracket without its other half, or more than is taken.
    """
    # Characters first: to encode a long text is not free.
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise _wrong(text, (0, len(text)), f"the expression is longer than {MAX_BYTES} bytes")
    found = list(_split(text))
    if not found:
        raise _wrong(text, (0, len(text)), "the expression is empty")
    literals = 0
    for before, word, after in zip([None, *found], found, [*found[1:], None], strict=False):
        literals += word.kind in ("number", "text") or word.text in _TRUTHS
        if literals > MAX_LITERALS:
            raise _wrong(text, word.span, f"more than {MAX_LITERALS} numbers, texts and truths")
        _look(text, before, word, after)
    _look_at_brackets(text, found)
    _look_at_order(text, found)
    return found


def _split(text: str) -> Iterator[Word]:
    position = 0
    while position < len(text):
        matched = _WORD.match(text, position)
        if matched is None or matched.lastgroup == "foreign":
            sign = matched[0] if matched else text[position]
            raise _wrong(text, (position, position + len(sign)), *_strange(sign))
        kind, span = matched.lastgroup or "", matched.span()
        if kind != "space":
            yield Word(kind, matched[0], span)
        position = matched.end()


def _strange(sign: str) -> tuple[str, str]:
    if sign in "\"'":
        return "a text that is never closed", "it has to end in the line it begins in"
    if not sign.isprintable():
        return f"character U+{ord(sign[0]):04X} cannot stand here", ""
    hint = _INSTEAD.get(sign, "" if sign.isascii() else f'a name is written {EDGES}["..."]')
    return f"{sign!r} is not of this language", hint


def _look(text: str, before: Word | None, word: Word, after: Word | None) -> None:
    """One word, and what stands around it."""
    touching = after if after is not None and after.span[0] == word.span[1] else None
    match word.kind:
        case "number":
            if touching is not None and touching.kind in ("name", "number"):
                raise _wrong(text, (word.span[0], touching.span[1]), f"{word.text + touching.text!r} is no number")
            _look_at_number(text, word)
        case "name" if keyword.iskeyword(word.text) and word.text not in _OPERATORS | _TRUTHS:
            raise _wrong(text, word.span, *_reserved(word.text))
        case "name" if word.text in _OPERATORS and _is_dot(before, after):
            raise _wrong(text, word.span, *_reserved(word.text))
        case "name" if touching is not None and touching.kind == "text" and word.text not in _OPERATORS:
            raise _wrong(text, word.span, f"a text takes nothing before its quote, and here is {word.text!r}")
        case "text":
            if after is not None and after.kind == "text":
                raise _wrong(text, after.span, "a text directly after a text", "in a list, write a comma between them")
            for escape in _ESCAPE.finditer(word.text):
                if escape[1] not in _ESCAPED:
                    span = (word.span[0] + escape.start(), word.span[0] + escape.end())
                    hint = "there are \\\\, \\\", \\', \\n, \\r and \\t"
                    raise _wrong(text, span, f"{escape[0]} stands for nothing", hint)
            for place, character in enumerate(word.text, word.span[0]):
                if character != "\t" and (character < " " or "\ud800" <= character <= "\udfff" or character == "\x7f"):
                    told = f"character U+{ord(character):04X} cannot stand in a text"
                    raise _wrong(text, (place, place + 1), told)
        case _:
            pass


def _look_at_number(text: str, word: Word) -> None:
    whole = word.text.isdecimal()
    if whole and len(word.text) > 1 and word.text[0] == "0":
        raise _wrong(text, word.span, f"{word.text!r} is no number", "write it without the leading zero")
    fits = len(word.text) <= 20 and int(word.text) <= _MOST if whole else math.isfinite(float(word.text))
    if not fits:
        raise _wrong(text, word.span, "the number does not fit into 64 bits")


def _is_dot(before: Word | None, after: Word | None) -> bool:
    return any(word is not None and word.text == "." for word in (before, after))


def _reserved(name: str) -> tuple[str, str]:
    told = f"{name!r} is a word that cannot stand here"
    return told, _WORDS_INSTEAD.get(name, f'in the name of an edge: {EDGES}["node.tensor"]')


def _look_at_brackets(text: str, found: list[Word]) -> None:
    opened: list[Word] = []
    for word in found:
        if word.kind != "sign":
            continue
        if word.text in _CLOSES:
            opened.append(word)
            if len(opened) > MAX_DEPTH:
                raise _wrong(text, word.span, f"nested deeper than {MAX_DEPTH} levels")
        elif word.text in _CLOSES.values():
            if not opened:
                raise _wrong(text, word.span, f"{word.text!r} closes nothing")
            last = opened.pop()
            if _CLOSES[last.text] != word.text:
                told = f"{word.text!r} closes nothing: {last.text!r} is open"
                raise _wrong(text, word.span, told)
    if opened:
        raise _wrong(text, opened[-1].span, f"{opened[-1].text!r} is never closed")


def _look_at_order(text: str, found: list[Word]) -> None:
    """Values and what joins them take turns. Python's parser holds them to it, too, but often points elsewhere."""
    before: Word | None = None
    after_value = asked_in = False
    for word in found:
        is_value = word.kind in ("number", "text") or (word.kind == "name" and word.text not in _OPERATORS)
        last = before.text if before else ""
        if asked_in:  # `x not` goes on with `in`
            fits = word.text == "in"
        elif last == ".":
            fits = word.kind == "name"
        elif after_value:
            fits = not is_value
        else:
            fits = is_value or word.text in _BEGINS or (last in _MAY_END and word.text in _MAY_END[last])
        if not fits:
            told = f"{word.text!r} cannot stand here" if before is None else f"{word.text!r} cannot follow {last!r}"
            raise _wrong(text, word.span, told)
        asked_in = after_value and word.text == "not"
        after_value = is_value or word.text in ")]"
        before = word
    if not after_value:
        end = found[-1].span[1]
        raise _wrong(text, (end, end + 1), f"something is missing after {found[-1].text!r}")


def _wrong(text: str, span: Span, told: str, hint: str = "") -> ExpressionError:
    return ExpressionError(text, [Mistake(span[0], max(span[1], span[0] + 1), told, hint)])
