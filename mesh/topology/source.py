"""YAML text to plain values, every one with the line and column it stands at.

YAML's traps are closed: a key twice is a mistake and never "the last one wins"; `no` is a text and only `true` and
`false` are truths; `12:30:45`, `0x10` and `1_000` are texts; anchors, aliases, merge keys, tags and a second document
are refused (a few lines of aliases can stand for gigabytes). Numbers are decimal, and `1e3` is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import yaml

from mesh.errors import Problem, TopologyError
from mesh.topology.syntax import explain

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_VALUES",
    "Path",
    "Source",
    "closest",
    "did_you_mean",
    "named",
    "read",
    "shown",
]

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top of the file."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_VALUES = 250_000
MAX_TEXT = 600
"""Characters of one mistake's text."""
MAX_COMPARISONS = 100_000
"""Pairs of names that are compared for one file's hints: some tenths of a second. Past that, a wrong name is told
without a guess at what was meant."""
_LISTED = 10

_REFUSED = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""What YAML does not take, and what it takes for an end of a line where no editor shows one."""


class _Loader(yaml.CSafeLoader):
    """PyYAML's C parser with the scalars of YAML 1.2's core schema, less octal and hexadecimal."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


@dataclass(slots=True)
class Source:
    """A file's values, and where each stands."""

    file: str
    """As the user named it."""
    end: tuple[int, int]
    """Line and column behind its last character."""
    value: Any = None
    """Dicts, lists, texts, numbers, truths and None."""
    values: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column, from 1, at which a value begins."""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column, from 1, at which a value's key begins."""
    texts: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column, from 1, of the first character of a text that stands in one line as it is."""
    problems: list[Problem] = field(default_factory=list[Problem])
    """Mistakes that leave the values readable: of a key that comes twice, the first counts."""
    _compared: int = 0

    def problem(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> Problem:
        """A mistake at `path`, or at the nearest thing around it that is in the file; its text in one line."""
        text, hint = _one_line(text), _one_line(hint)
        while True:
            tables = (self.keys, self.values) if at_key else (self.values, self.keys)
            for table in tables:
                if path in table:
                    return Problem(self.file, *min(table[path], self.end), text, hint)
            if not path:
                return Problem(self.file, 1, 1, text, hint)
            # What is missing is told at the key of what should hold it.
            path, at_key = path[:-1], True

    def problem_within(self, path: Path, start: int, text: str, hint: str, shown: tuple[str, ...]) -> Problem:
        """A mistake within a text, from its character `start`."""
        whole = self.problem(path, text, hint)
        line, column = self.texts.get(path, (whole.line, whole.column))
        return replace(whole, line=line, column=column + (start if path in self.texts else 0), shown=shown)

    def near(self, word: str, known: Iterable[str]) -> str:
        """`did_you_mean`, as long as the file has not asked too often: a thousand words, each among a thousand."""
        names = list(known)
        self._compared += len(names)
        return did_you_mean(word, names) if self._compared <= MAX_COMPARISONS else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant, if any is near; upper and lower case do not count."""
    names = {name.casefold(): name for name in known}
    found = get_close_matches(word[:128].casefold(), names, n=1, cutoff=0.6)
    return names[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or else what there is."""
    names = [name for name in known if name]
    meant = closest(word, names)
    if meant is not None:
        return f"did you mean {meant!r}?"
    return f"there is: {named(names)}" if names else ""


def named(names: Iterable[str]) -> str:
    """Names with commas between; of many only the first, and how many there are."""
    every = list(names)
    listed = ", ".join(every[:_LISTED])
    return listed if len(every) <= _LISTED else f"{listed}, ... ({len(every)} in all)"


def shown(value: object) -> str:
    """A value as error texts show it: as the file has it, in one line, and short."""
    words: dict[object, str] = {None: "nothing", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: str) -> str:
    text = " ".join(text[: 2 * MAX_TEXT].split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def read(text: str, file: str) -> Source:
    """Parse YAML.

    Raises:
        TopologyError: The text is no YAML, or is more of YAML than is taken here; every such place at once, except
            after a syntax error. (A key that comes twice is left to `Source.problems`.)
    """
    text = text.removeprefix("\ufeff")
    source = Source(file, end=_place(text, len(text)))
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise TopologyError([Problem(file, 1, 1, f"the file is longer than {MAX_BYTES} bytes")])
    if refused := _REFUSED.search(text):
        line, column = _place(text, refused.start())
        wrong = f"character U+{ord(refused[0]):04X} is not taken in a topology file"
        raise TopologyError([Problem(file, line, column, wrong)])
    try:
        problems = _forbidden(text, file)
        if not problems:
            node = yaml.compose(text, _Loader)
            if node is not None:
                source.value = _construct(node, (), source, problems)
    except yaml.YAMLError as error:
        raise TopologyError([Problem(file, *explain(error, text, source.end))]) from None
    if problems:
        raise TopologyError([*source.problems, *problems])
    return source


def _place(text: str, index: int) -> tuple[int, int]:
    before = text[:index].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _forbidden(text: str, file: str) -> list[Problem]:
    """What the events alone show: before anything is built, so that nothing can blow up."""
    problems: list[Problem] = []
    depth = documents = values = 0
    for event in yaml.parse(text, _Loader):
        mark = event.start_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        wrong = ""
        if isinstance(event, yaml.NodeEvent):
            values += 1
            if values > MAX_VALUES:
                return [*problems, Problem(file, *place, f"the file holds more than {MAX_VALUES} keys and values")]
        if isinstance(event, yaml.AliasEvent):
            wrong = "aliases are not taken: write the value out"
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            wrong = "anchors are not taken: write the value out where it is used"
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            wrong = "a second document: a file holds one topology" if documents == 2 else ""
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            wrong = "tags are not taken: write the plain value"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return [*problems, Problem(file, *place, f"nested deeper than {MAX_DEPTH} levels")]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if wrong:
            problems.append(Problem(file, *place, wrong))
    return problems


def _construct(node: yaml.Node, path: Path, source: Source, problems: list[Problem]) -> Any:
    source.values[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, index), source, problems) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, problems)
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return node.value == "true"
        case "int" | "float" as kind:
            return _number(node.value, kind, path, source, problems)
        case _:
            begin, end = node.start_mark, node.end_mark
            around = end.column - begin.column - len(node.value)
            if begin.line == end.line and around == (2 if getattr(node, "style", None) in ("'", '"') else 0):
                source.texts[path] = (begin.line + 1, begin.column + 1 + around // 2)
            return node.value


def _number(text: str, kind: str, path: Path, source: Source, problems: list[Problem]) -> int | float:
    """A number of at most 64 bits: past that, an integer is no tensor's and a float is infinite."""
    if kind == "float" and math.isfinite(number := float(text)):
        return number
    if kind == "int" and len(text) <= 20 and -(1 << 63) <= (whole := int(text)) < 1 << 64:
        return whole
    hint = "if it is a text, put it in quotes"
    problems.append(source.problem(path, f"number {text[:40]} does not fit into 64 bits", hint))
    return 0


def _mapping(node: yaml.MappingNode, path: Path, source: Source, problems: list[Problem]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in node.value:
        here = (key.start_mark.line + 1, key.start_mark.column + 1)
        wrong = hint = ""
        if not isinstance(key, yaml.ScalarNode):
            wrong = "a key has to be a text"
        elif key.value in made:
            text = f"key {shown(key.value)} comes twice; first in line {source.keys[(*path, key.value)][0]}"
            source.problems.append(Problem(source.file, *here, text))
        elif key.value == "<<":
            wrong = "merge keys are not taken: write the values out"
        elif ":" in key.value and not key.style and isinstance(value, yaml.ScalarNode) and not value.value:
            wrong, hint = f"{shown(key.value)} has no value", "write a space after the ':'"
        else:
            source.keys[(*path, key.value)] = here
            made[key.value] = None
            made[key.value] = _construct(value, (*path, key.value), source, problems)
        if wrong:
            problems.append(Problem(source.file, *here, wrong, hint))
    return made
