"""YAML text to plain values, every one with the line and column it stands at.

YAML's traps are closed: a key twice is a mistake and never "the last one wins"; `no` is a text and only `true` and
`false` are truths; `12:30:45`, `0x10` and `1_000` are texts; anchors, aliases, merge keys, tags and a second document
are refused (a few lines of aliases can stand for gigabytes). Numbers are decimal, and `1e3` is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import yaml

from mesh.errors import Problem, TopologyError

__all__ = ["Path", "Source", "did_you_mean", "read"]

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top of the file."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 16


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
    value: Any = None
    """Dicts, lists, texts, numbers, truths and None."""
    values: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column, from 1, at which a value begins."""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column, from 1, at which a value's key begins."""

    def problem(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> Problem:
        """A mistake at `path`, or at the nearest thing around it that is in the file."""
        while True:
            tables = (self.keys, self.values) if at_key else (self.values, self.keys)
            for table in tables:
                if path in table:
                    return Problem(self.file, *table[path], text, hint)
            if not path:
                return Problem(self.file, 1, 1, text, hint)
            # What is missing is told at the key of what should hold it.
            path, at_key = path[:-1], True


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or else what there is."""
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is: {', '.join(names[:20])}" if names else ""


def read(text: str, file: str) -> Source:
    """Parse YAML.

    Raises:
        TopologyError: The text is no YAML, or is more of YAML than is taken here; every such place at once, except
        after a
            syntax error.
    """
    source = Source(file)
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise TopologyError([Problem(file, 1, 1, f"the file is longer than {MAX_BYTES} bytes")])
    try:
        problems = _forbidden(text, file)
        if not problems:
            node = yaml.compose(text, _Loader)
            if node is not None:
                source.value = _construct(node, (), source, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise TopologyError([Problem(file, line, column, f"not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise TopologyError([Problem(file, 1, 1, f"not YAML: {str(error).splitlines()[0]}")]) from None
    if problems:
        raise TopologyError(problems)
    return source


def _forbidden(text: str, file: str) -> list[Problem]:
    """What the events alone show: before anything is built, so that nothing can blow up."""
    problems: list[Problem] = []
    depth = documents = 0
    for event in yaml.parse(text, _Loader):
        mark = event.start_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        wrong = ""
        if isinstance(event, yaml.AliasEvent):
            wrong = "aliases are not taken: write the value out"
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            wrong = "anchors are not taken: write the value out where it is used"
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            wrong = "a second document: a file holds one topology" if documents == 2 else ""
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            wrong = "tags are not taken" if event.tag != "!" else ""
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth == MAX_DEPTH + 1:
                problems.append(Problem(file, *place, f"nested deeper than {MAX_DEPTH}"))
                return problems
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
        case "int":
            # Python refuses to read numbers past some thousand digits; nothing here needs more than 64 bits.
            return int(node.value) if len(node.value) <= 20 else node.value
        case "float":
            return float(node.value)
        case _:
            return node.value


def _mapping(node: yaml.MappingNode, path: Path, source: Source, problems: list[Problem]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in node.value:
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(source.file, line, column, "a key has to be a text"))
        elif key.value in made:
            first = source.keys[(*path, key.value)][0]
            problems.append(Problem(source.file, line, column, f"key {key.value!r} comes twice; first in line {first}"))
        elif key.value == "<<":
            problems.append(Problem(source.file, line, column, "merge keys are not taken: write the values out"))
        else:
            source.keys[(*path, key.value)] = (line, column)
            made[key.value] = None
            made[key.value] = _construct(value, (*path, key.value), source, problems)
    return made
