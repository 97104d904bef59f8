"""Topology files broken in every way that fingers and editors break them: by line, by value, by key, by character."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

__all__ = ["Mutant", "mutants", "some"]


@dataclass(frozen=True)
class Mutant:
    """A changed topology, and what was done to it."""

    done: str
    text: str


WRONG_VALUES = (
    "", "~", "5", "-1", "0", "1.5", "1e400", "9" * 30, "true", "no", "x", "''", "[]", "{}", "[x]", "{x: y}", "[[x]]",
    "a.b", "scale.", ".x", "5 parsecs", "../..", "/etc/passwd", "é", "x" * 300, "- x", "x: y", "x:y", "*x", "&x y",
    "!!int x", "!x", "@x", "%x", "|", ">", "'", '"', '"\\q"', "[", "}", ",", "#", "x #y", "?", "<<", "\t", "\0",
    "\x85", "\u2028", "\ufeff", "\ud800",
)  # fmt: skip
"""What may come to stand where a value was."""

WRONG_KEYS = ("", "5", "X", "x", "''", "a b", "a.b", "é", "<<", "[a]", "? a", "gateway", "fused", "*a", "x" * 300)


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of a topology, in an order of their kinds."""
    yield from _by_line(text)
    yield from _by_value(text)


def some(text: str, most: int) -> list[Mutant]:
    """At most so many mutants, taken evenly from all of them."""
    every = list(mutants(text))
    step = max(1.0, len(every) / most)
    return [every[int(index * step)] for index in range(min(most, len(every)))]


def _by_line(text: str) -> Iterator[Mutant]:
    lines = text.splitlines(keepends=True)
    told = [index for index, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    for index in told:
        before, line, after = "".join(lines[:index]), lines[index], "".join(lines[index + 1 :])
        changed = {
            "left out": "",
            "twice": line + line,
            "indented by one more": f" {line}",
            "indented by two more": f"  {line}",
            "indented by a tab": f"\t{line.lstrip()}",
            "not indented": line.lstrip(" "),
            "indented by one less": line.removeprefix(" "),
            "without its colons": line.replace(":", ""),
            "without spaces after colons": line.replace(": ", ":"),
            "without closing brackets": re.sub(r"[]}]", "", line),
            "without commas": line.replace(",", ""),
            "with a bracket too many": f"{line.rstrip()}]\n",
            "as an entry of a list": re.sub(r"\S", r"- \g<0>", line, count=1),
            "a comment": f"#{line}",
        }
        for done, new in changed.items():
            if new != line:
                yield Mutant(f"line {index + 1} {done}", f"{before}{new}{after}")
        yield Mutant(f"cut off after line {index + 1}", before + line)
        yield Mutant(f"cut off within line {index + 1}", before + line[: len(line) // 2])
        if after:
            yield Mutant(
                f"lines {index + 1} and {index + 2} swapped",
                f"{before}{lines[index + 1]}{line}" + "".join(lines[index + 2 :]),
            )


def _by_value(text: str) -> Iterator[Mutant]:
    try:
        top = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return  # broken already
    keys: list[tuple[int, int]] = []
    values: list[tuple[int, int]] = []
    _collect(top, keys, values)
    values.sort()
    for at, (begin, end) in enumerate(values):
        for new in WRONG_VALUES:
            yield _replaced(text, begin, end, new)
        if at + 1 < len(values) and values[at + 1][0] >= end:
            other = slice(*values[at + 1])
            text_between = text[end : other.start]
            swapped = f"{text[:begin]}{text[other]}{text_between}{text[begin:end]}{text[other.stop :]}"
            yield Mutant(f"{text[begin:end]!r} and {text[other]!r} swapped", swapped)
    for at, (begin, end) in enumerate(keys):
        key = text[begin:end]
        meant = [key[1:], f"{key}s", key.upper(), f"{key}{key}", text[slice(*keys[at - 1])]]
        for new in (*WRONG_KEYS, *meant):
            yield _replaced(text, begin, end, new)


def _replaced(text: str, begin: int, end: int, new: str) -> Mutant:
    line = text.count("\n", 0, begin) + 1
    return Mutant(f"line {line}: {text[begin:end][:40]!r} is {new[:40]!r}", f"{text[:begin]}{new}{text[end:]}")


def _collect(node: yaml.Node | None, keys: list[tuple[int, int]], values: list[tuple[int, int]]) -> None:
    """Where each key and each value of a text begins and ends; a block ends before the blank that follows it."""
    if node is None:
        return
    begin, end = node.start_mark, node.end_mark
    assert begin is not None
    assert end is not None
    if node.value:
        values.append((begin.index, end.index))
    if isinstance(node, yaml.SequenceNode):
        for inside in node.value:
            _collect(inside, keys, values)
    elif isinstance(node, yaml.MappingNode):
        for key, inside in node.value:
            keys.append((key.start_mark.index, key.end_mark.index))
            _collect(inside, keys, values)
