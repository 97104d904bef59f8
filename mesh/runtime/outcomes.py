"""`Outcomes`: who answered in the joins of one aggregate, for the request's report and for statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.context import BranchOutcome, BranchState, JoinOutcome
from mesh.handler import Branches
from mesh.runtime.joining import Joining
from mesh.runtime.state import State
from mesh.tensors import Tensors

__all__ = ["BranchCounter", "Outcomes"]


@dataclass(slots=True)
class BranchCounter:
    """What became of one branch so far (see `mesh.transports.statistics.BranchStatistics`)."""

    answered: int = 0
    failed: int = 0
    late: int = 0
    without_rows: int = 0
    behind_s: float = 0.0
    max_behind_s: float = 0.0

    def behind(self, seconds: float) -> None:
        """It ended so long after the first."""
        self.behind_s += seconds
        self.max_behind_s = max(self.max_behind_s, seconds)


class Outcomes:
    """What became of each branch of one aggregate's joins.

    Args:
        branches: Their names; those that are left out are known once they are seen.
    """

    def __init__(self, branches: Iterable[str] = ()) -> None:
        self.counters = {name: BranchCounter() for name in branches}
        """By branch."""

    def ran(self, node: str, state: State, branches: Branches) -> None:
        """A join was given its branches."""
        partial = False
        ended = state.ended
        first = min((ended[name] for name in branches if name in ended), default=None)
        for name, result in branches.items():
            counter = self._counter(name)
            if isinstance(result, Tensors):
                if result.rows or not branches.rows:
                    counter.answered += 1
                else:
                    counter.without_rows += 1
                if first is not None and name in ended:
                    counter.behind(ended[name] - first)
                continue
            partial = True
            if name in state.errors:
                counter.failed += 1
            else:
                counter.late += 1
                if first is not None:
                    counter.behind(state.context.clock.now() - first)
        context = state.context
        if context.joins is not None and (partial or context.timings is not None):
            context.joins.append(_outcome(node, state, branches))

    def missed(self, state: State, joining: Joining) -> None:
        """A join could not run: too many of its branches failed, or were not there in time."""
        for name in (*joining.there, *joining.empty, *joining.failed, *joining.pending):
            counter = self._counter(name)
            if name in joining.there:
                counter.answered += 1
            elif name in joining.empty:
                counter.without_rows += 1
            elif name in state.errors:
                counter.failed += 1
            else:
                counter.late += 1

    def _counter(self, branch: str) -> BranchCounter:
        counter = self.counters.get(branch)
        if counter is None:
            counter = self.counters[branch] = BranchCounter()
        return counter


def _outcome(node: str, state: State, branches: Branches) -> JoinOutcome:
    found: list[BranchOutcome] = []
    for name, result in branches.items():
        if isinstance(result, Tensors):
            there = BranchState.ANSWERED if result.rows or not branches.rows else BranchState.WITHOUT_ROWS
            found.append(BranchOutcome(name, there, result.rows))
        else:
            found.append(
                BranchOutcome(name, BranchState.FAILED if name in state.errors else BranchState.LATE, 0, result)
            )
    return JoinOutcome(node, tuple(found))
