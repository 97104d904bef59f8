"""`Program`: the steps of a graph in the form in which a request runs through them, made once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from mesh.runtime.steps import JoinStep, Step

__all__ = ["Program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Steps by number, each after those that feed it."""

    steps: tuple[Step, ...]
    feeds: tuple[tuple[int, ...], ...]
    """By step, the steps that feed it."""
    followers: tuple[tuple[int, ...], ...]
    """By step, the steps that it feeds."""
    missing: tuple[int, ...]
    """By step, how many steps feed it."""
    holders: tuple[int, ...]
    """By step, who waits for it: a bit for each follower, and one past them all for the outputs of the graph."""
    first: tuple[int, ...]
    """The steps that nothing feeds."""
    gives: frozenset[int]
    """The steps that give an output of the graph."""
    joins: dict[int, JoinStep]
    """By step, the joins that do not need every branch."""
    timed: bool
    """There is some join: when steps ended is worth knowing."""
    one_by_one: bool
    """Each step waits for the one before it, and needs all that feeds it: no two ever run at once."""
    only: Step | None
    """The step of a graph of one node, where it needs nothing but to be run."""

    @classmethod
    def of(cls, steps: Sequence[Step], wanted: Collection[str]) -> Self:
        """Put steps in order of number.

        Args:
            steps: Each after those that feed it.
            wanted: The nodes that give the graph's outputs.
        """
        number = {step.name: index for index, step in enumerate(steps)}
        feeds = tuple(tuple(sorted(number[feed] for feed in step.feeds if feed in number)) for step in steps)
        after: list[list[int]] = [[] for _ in steps]
        for index, before in enumerate(feeds):
            for feeder in before:
                after[feeder].append(index)
        gives = frozenset(index for index, step in enumerate(steps) if step.name in wanted)
        first = tuple(index for index, before in enumerate(feeds) if not before)
        joins = {
            index: step for index, step in enumerate(steps) if isinstance(step, JoinStep) and step.join is not None
        }
        timed = any(isinstance(step, JoinStep) for step in steps)
        return cls(
            steps=tuple(steps),
            feeds=feeds,
            followers=tuple(map(tuple, after)),
            missing=tuple(map(len, feeds)),
            holders=tuple(
                sum(1 << one for one in followers) | (index in gives) << len(steps)
                for index, followers in enumerate(after)
            ),
            first=first,
            gives=gives,
            joins=joins,
            timed=timed,
            only=steps[0] if len(steps) == 1 and not timed else None,
            one_by_one=not joins and all(index - 1 in before for index, before in enumerate(feeds) if index),
        )
