"""Random graphs, and what each gives for one row at a time, worked out by a plain interpreter that knows no batches."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from hypothesis import strategies as st

__all__ = ["MANY", "Part", "Plain", "RandomGraph", "random_graphs"]

Path = tuple[int, ...]
"""Which row of an expansion, and which row of an expansion of that: empty for the row of the request."""
MANY = 3
"""An expansion makes fewer rows than that of each."""
_MOST_NODES = 9
_MOST_EXPANSIONS = 2
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_MODULE = "tests.unit.runtime.sample_nodes"


@dataclass(frozen=True)
class Test:
    """A condition: an edge compared with a number, and perhaps a parameter."""

    __test__ = False
    on: str
    sign: str
    number: int
    parameter: bool

    def __str__(self) -> str:
        return f"{edge(self.on)} {self.sign} {self.number}" + (" and parameters.go" if self.parameter else "")


@dataclass(frozen=True)
class Part:
    """One node. `lineage` and `guards` say which rows it has, as the checker has to find out by itself."""

    name: str
    kind: str
    feeds: tuple[str, ...]
    times: int = 1
    plus: int = 0
    when: Test | None = None
    arm: tuple[str, float, float] | None = None
    default: int | None = None
    waits: bool = False
    lineage: tuple[str, ...] = ()
    guards: frozenset[str] = frozenset()
    outer: frozenset[str] = field(default=frozenset())
    """Of an expansion, the guards of the rows that it was given."""

    def written(self) -> str:
        """As the topology file has it."""
        feeds = ", ".join(self.feeds)
        match self.kind:
            case "Wrapped":
                told = f"with: {{times: {self.times}, plus: {self.plus}}}, inputs: {{x: {edge(feeds)}}}"
            case "Lines":
                told = f"with: {{most: {MANY}}}, inputs: {{x: {edge(feeds)}}}"
            case "Add":
                told = f"inputs: {{a: {edge(self.feeds[0])}, b: {edge(self.feeds[1])}}}"
            case "Gather":
                told = f"with: {{how: {{x: sum}}}}, inputs: [{feeds}]"
            case _:
                default = "" if self.default is None else f", default: {{x: {self.default}}}"
                told = f"with: {{tensors: [x]{default}}}, inputs: [{feeds}]"
        module = _MODULE if self.kind in ("Wrapped", "Lines", "Add") else "nodes.aggregate"
        told += f', when: "{self.when}"' if self.when else ""
        told += ", join: {deadline: 60s}" if self.waits else ""
        if self.arm is not None:
            group, begin, end = self.arm
            told += f", split: {{group: {group}, weight: {round(100 * (end - begin))}}}"
        return f"  {self.name}: {{uses: {module}:{self.kind}, {told}}}\n"


def edge(name: str) -> str:
    """What a node gives, or the input of the graph."""
    return name if name == "x" else f"{name}.x"


@dataclass(frozen=True)
class RandomGraph:
    """A graph, what it is asked, and who runs what of it in a placement of its own."""

    parts: dict[str, Part]
    outputs: tuple[str, ...]
    request: tuple[int, ...]
    go: bool
    homes: tuple[int, ...]

    def __str__(self) -> str:
        workers: dict[int, list[str]] = {0: []}
        for name, home in zip(self.parts, self.homes, strict=True):
            workers.setdefault(home, []).append(name)
        return (
            "mesh: v1\nname: random\ninputs: {x: {datatype: FP32, shape: [-1]}}\nnodes:\n"
            + "".join(part.written() for part in self.parts.values())
            + f"outputs: {{{', '.join(f'o-{name}: {edge(name)}' for name in self.outputs)}}}\n"
            + "placements:\n  some:\n"
            + "".join(f"    w{home}: {{nodes: [{', '.join(names)}]}}\n" for home, names in workers.items())
        )

    __repr__ = __str__


class Plain:
    """One row of a request on its way through a graph."""

    def __init__(self, graph: RandomGraph, row: int) -> None:
        self._parts = graph.parts
        self._go = graph.go
        self._row = np.float32(row)

    def value(self, name: str, path: Path = ()) -> np.float32 | None:
        """What a node gives for the row at a path; None where it does not run on it."""
        if name == "x":
            return self._row
        part = self._parts[name]
        match part.kind:
            case "Gather":
                return self._gathered(part, path)
            case "FirstOf" | "Max":
                return self._joined(part, path)
            case "Lines":
                source = self._taken(part, path[:-1])
                made = source is not None and path[-1] < abs(int(source[0])) % MANY
                return np.float32(source[0] * np.float32(10) + np.float32(path[-1])) if made and source else None
            case _:
                pass
        taken = self._taken(part, path)
        if taken is None:
            return None
        if part.kind == "Add":
            return np.float32(taken[0] + taken[1])
        wrapped = np.fmod(np.float32(taken[0] * np.float32(part.times) + np.float32(part.plus)), np.float32(97))
        return np.float32(wrapped + np.float32(0))

    def _taken(self, part: Part, path: Path) -> list[np.float32] | None:
        """What a node is given for the row; None where it is not run."""
        found = [self.value(feed, path) for feed in part.feeds]
        given = [one for one in found if one is not None]
        if len(given) < len(found) or not self._in_arm(part, given[0]):
            return None
        if part.when is not None:
            seen = self.value(part.when.on, path)
            held = seen is not None and _SIGNS[part.when.sign](seen, part.when.number)
            if not held or (part.when.parameter and not self._go):
                return None
        return given

    def _in_arm(self, part: Part, value: np.float32) -> bool:
        if part.arm is None:
            return True
        group, begin, end = part.arm
        person = blake2b(group.encode(), digest_size=16).digest()
        digest = blake2b(value.astype("<f4").tobytes(), digest_size=8, person=person).digest()
        return begin <= int.from_bytes(digest, "little") / 2**64 < end

    def _joined(self, part: Part, path: Path) -> np.float32 | None:
        found = [one for one in (self.value(feed, path) for feed in part.feeds) if one is not None]
        if found:
            return found[0] if part.kind == "FirstOf" else max(found, key=float)
        met = all(self._through(guard, path) for guard in part.guards)
        return np.float32(part.default) if part.default is not None and met and self._there(part, path) else None

    def _through(self, guard: str, path: Path) -> bool:
        """Whether a guard let the row, or the one that it was made of, through."""
        depth = len(self._parts[guard].lineage) - (self._parts[guard].kind == "Lines")
        return self._taken(self._parts[guard], path[:depth]) is not None

    def _there(self, part: Part, path: Path) -> bool:
        """Whether there is such a row at all."""
        return not part.lineage or self.value(part.lineage[-1], path) is not None

    def _gathered(self, part: Part, path: Path) -> np.float32 | None:
        expansion = self._parts[self._parts[part.feeds[0]].lineage[-1]]
        if self._taken(expansion, path) is None:
            return None
        found = [self.value(part.feeds[0], (*path, index)) for index in range(MANY)]
        return np.float32(sum((one for one in found if one is not None), np.float32(0)))


@dataclass
class _Growing:
    draw: st.DrawFn
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    used: set[str] = field(default_factory=set[str])

    def rows(self, name: str) -> tuple[tuple[str, ...], frozenset[str]]:
        """Lineage and guards."""
        return ((), frozenset()) if name == "x" else (self.parts[name].lineage, self.parts[name].guards)

    def add(self, part: Part) -> str:
        self.parts[part.name] = part
        self.used.update(part.feeds)
        self.used.update([part.when.on] if part.when else [])
        return part.name

    def pick(self, among: list[str]) -> str:
        # The last are the likelier: graphs grow long as well as wide.
        return self.draw(st.sampled_from([*among, *among[-2:]]))

    def grow(self) -> None:
        """One more node, or a split of several."""
        name = f"n{len(self.parts)}"
        feed = self.pick(["x", *self.parts])
        lineage, guards = self.rows(feed)
        alike = [one for one in ("x", *self.parts) if self.rows(one)[0] == lineage]
        kind = self.draw(st.sampled_from(["Wrapped", "Wrapped", "Add", "Lines", "FirstOf", "Max", "Gather", "split"]))
        match kind:
            case "split":
                self._split(name, feed)
            case "Gather" if lineage:
                self._gather(name, feed)
            case "FirstOf" | "Max" if len(alike) > 1 and alike != ["x"]:
                self._join(name, kind, alike)
            case "Lines" if len(lineage) < _MOST_EXPANSIONS:
                part = self._conditional(Part(name, "Lines", (feed,), lineage=lineage, guards=guards), alike)
                self.add(replace(part, lineage=(*lineage, name), outer=part.guards))
            case "Add":
                other = self.pick(alike)
                both = guards | self.rows(other)[1]
                self.add(self._conditional(Part(name, "Add", (feed, other), lineage=lineage, guards=both), alike))
            case _:
                self.add(self._conditional(self._wrapped(name, feed), alike))

    def _wrapped(self, name: str, feed: str) -> Part:
        times, plus = self.draw(st.sampled_from([-1, 1, 2])), self.draw(st.integers(-3, 3))
        lineage, guards = self.rows(feed)
        return Part(name, "Wrapped", (feed,), times=times, plus=plus, lineage=lineage, guards=guards)

    def _conditional(self, part: Part, alike: list[str]) -> Part:
        if not self.draw(st.booleans()):
            return part
        on, sign = self.pick(alike), self.draw(st.sampled_from(list(_SIGNS)))
        when = Test(on, sign, self.draw(st.integers(-3, 5)), parameter=self.draw(st.integers(0, 3)) == 0)
        return replace(part, when=when, guards=part.guards | self.rows(on)[1] | {part.name})

    def _gather(self, name: str, feed: str) -> None:
        expansion = self.parts[self.rows(feed)[0][-1]]
        lineage = expansion.lineage[:-1]
        self.add(Part(name, "Gather", (feed,), lineage=lineage, guards=expansion.outer))

    def _join(self, name: str, kind: str, alike: list[str]) -> None:
        branches = [one for one in alike if one != "x"]
        chosen = tuple(self.draw(st.lists(st.sampled_from(branches), min_size=1, max_size=3, unique=True)))
        common = frozenset.intersection(*(self.parts[one].guards for one in chosen)) - set(chosen)
        default, waits = self.draw(st.integers(-9, 9)), self.draw(st.booleans())
        lineage = self.parts[chosen[0]].lineage
        self.add(Part(name, kind, chosen, default=default, waits=waits, lineage=lineage, guards=common))

    def _split(self, name: str, feed: str) -> None:
        lineage, guards = self.rows(feed)
        group, share = f"g-{name}", self.draw(st.sampled_from([0.5, 0.25]))
        arms: list[str] = []
        for index, (begin, end) in enumerate(((0.0, share), (share, 1.0))):
            arm = f"{name}_{index}"
            part = replace(self._wrapped(arm, feed), arm=(group, begin, end), guards=guards | {arm})
            arms.append(self.add(part))
        self.add(Part(name, "FirstOf", tuple(arms), lineage=lineage, guards=guards))

    def finish(self) -> tuple[str, ...]:
        """Lead what nobody takes to outputs that every row of the request has."""
        base = self.add(Part("base", "Wrapped", ("x",)))
        outputs: list[str] = []
        for name in [one for one in self.parts if one not in self.used]:
            last = name
            while self.rows(last)[0]:
                self._gather(f"{last}-g", last)
                last = f"{last}-g"
            if self.rows(last)[1]:
                last = self.add(Part(f"{last}-a", "FirstOf", (last, base)))
            outputs.append(last)
        return tuple(outputs)


@st.composite
def random_graphs(draw: st.DrawFn) -> RandomGraph:
    """Chains, diamonds, conditions, splits, joins with defaults, expansions and their gathers."""
    growing = _Growing(draw)
    for _ in range(draw(st.integers(1, _MOST_NODES))):
        growing.grow()
    outputs = growing.finish()
    homes = [draw(st.integers(0, 2)) for _ in growing.parts]
    request = draw(st.lists(st.integers(-4, 6), max_size=6))
    return RandomGraph(growing.parts, outputs, tuple(request), draw(st.booleans()), tuple(homes))
