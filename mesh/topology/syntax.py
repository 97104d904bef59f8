"""What libyaml says of a text that is no YAML, in words that tell what to write instead."""

from __future__ import annotations

import yaml

__all__ = ["explain"]

_QUOTE = "put it in quotes"
_BESIDE = "check the indentation, and that every key is written `key: value`"
_BACKSLASH = "a backslash that stands for nothing"
_TWICE = "in double quotes write it twice, or use single quotes"
_TAG = "tags are not taken: write the plain value"

_MEANING: dict[str, tuple[str, str]] = {
    "found a tab character that violates indentation": ("a tab: YAML is indented with spaces", ""),
    "found a tab character where an indentation space is expected": ("a tab: YAML is indented with spaces", ""),
    "mapping values are not allowed in this context": (
        "a ':' where no key can stand",
        "check the indentation; a text that holds ': ' needs quotes",
    ),
    "block sequence entries are not allowed in this context": (
        "a '-' where no list can begin",
        "begin a list in a line of its own, or write [a, b]",
    ),
    "could not find expected ':'": ("a key without ':'", _BESIDE),
    "did not find expected key": ("something that does not go on with the mapping around it", _BESIDE),
    "did not find expected '-' indicator": (
        "something that does not go on with the list around it",
        "begin every entry with '- ', equally indented",
    ),
    "did not find expected ',' or ']'": ("a list in [ ] lacks a comma, or is not closed", ""),
    "did not find expected ',' or '}'": ("a mapping in { } lacks a comma, or is not closed", ""),
    "found unexpected ':'": ("a ':' with nothing after it", "write {key: value}, with a space after the ':'"),
    "did not find expected node content": ("a value is expected here", ""),
    "found unknown escape character": (_BACKSLASH, _TWICE),
    "did not find expected hexdecimal number": (_BACKSLASH, _TWICE),
    "found invalid Unicode character escape code": (_BACKSLASH, _TWICE),
    "did not find expected alphabetic or numeric character": ("a text cannot begin with '*' or '&'", _QUOTE),
    "did not find expected comment or line break": ("a text cannot begin with '|' or '>'", _QUOTE),
    "found undefined tag handle": (_TAG, ""),
    "did not find expected tag URI": (_TAG, ""),
    "found unexpected end of stream": ("a quote that is never closed", ""),
    "found unexpected document indicator": ("a quote that is never closed", ""),
    "did not find expected <document start>": (
        "something after the end of the topology",
        "check the indentation, and for a bracket too many",
    ),
}
"""libyaml's text -> what is wrong, and what to write instead. A text that is not here is shown as it is."""


def explain(error: yaml.YAMLError, text: str, end: tuple[int, int]) -> tuple[int, int, str, str]:
    """Line and column from 1, what is wrong, and a hint.

    Args:
        error: What libyaml raised.
        text: What it read.
        end: Line and column behind its last character: libyaml sees an end to a last line that has none.
    """
    if not isinstance(error, yaml.MarkedYAMLError):
        return 1, 1, f"not YAML: {error}", ""
    mark, problem = error.problem_mark or error.context_mark, error.problem or error.context or "it cannot be read"
    begun = error.context_mark
    if begun and error.context in ("while scanning a quoted scalar", "while scanning a simple key"):
        # Where a quote or a key begins tells more than where its end was given up.
        mark = begun
    line, column = min((mark.line + 1, mark.column + 1), end) if mark else (1, 1)
    if problem == "found character that cannot start any token":
        found = _character(text, line, column)
        if found == "\t":
            return line, column, "a tab: YAML is indented with spaces", ""
        return line, column, f"a text cannot begin with {found!r}", _QUOTE
    wrong, hint = _MEANING.get(problem, (f"not YAML: {problem}", ""))
    if begun and begun.line + 1 < line and problem.startswith("did not find expected ','"):
        hint = f"it begins in line {begun.line + 1}"
    return line, column, wrong, hint


def _character(text: str, line: int, column: int) -> str:
    found = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[line - 1 :][:1]
    return found[0][column - 1 : column] if found else ""
