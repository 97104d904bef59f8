"""`Joining`: one join of one request, and whether it is time for it to run. Pure: told of branches and of time."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from mesh.errors import DeadlineExceeded, RequestError
from mesh.topology.graph import Join

__all__ = ["Joining", "Verdict"]


class Verdict(Enum):
    """What there is to do."""

    WAIT = "wait"
    RUN = "run"
    FAIL = "fail"


class Joining:
    """The branches of one join as they end.

    Args:
        policy: How it waits.
        branches: Their names.
    """

    def __init__(self, policy: Join, branches: Iterable[str]) -> None:
        self._policy = policy
        self.pending = dict.fromkeys(branches)
        """Branches that have not ended."""
        self.failed: dict[str, RequestError] = {}
        """Branches that ended without an answer."""
        self.there: list[str] = []
        """Branches that are there, and have rows."""
        self.empty: list[str] = []
        """Branches that are there, and have none."""
        self.ran = False
        """Set once the join was made to run."""
        self._required = frozenset(policy.required)
        self._count = len(self.pending)

    def answered(self, branch: str, *, has_rows: bool) -> Verdict:
        """A branch is there."""
        del self.pending[branch]
        if has_rows:
            self.there.append(branch)
        else:
            self.empty.append(branch)
        return self._judge(waits=self._policy.waits)

    def fail(self, branch: str, error: RequestError) -> Verdict:
        """A branch gives nothing."""
        if branch not in self.pending:
            return Verdict.WAIT
        del self.pending[branch]
        self.failed[branch] = error
        return self._judge(waits=self._policy.waits)

    def due(self) -> Verdict:
        """The join's deadline is here."""
        verdict = self._judge(waits=False)
        return Verdict.FAIL if verdict is Verdict.WAIT else verdict

    def error(self) -> RequestError:
        """Why it cannot run: what failed first, or what is missing at the deadline."""
        for branch in self._policy.required:
            if branch in self.failed:
                return self.failed[branch]
        for error in self.failed.values():
            return error
        missing = ", ".join(self.pending)
        return DeadlineExceeded(f"{len(self.there)} of {self._needed} branches were there in time; missing: {missing}")

    @property
    def _needed(self) -> int:
        # A branch without rows has nothing to say: the others are as many as there can be.
        return min(self._policy.quorum, self._count - len(self.empty))

    def _judge(self, *, waits: bool) -> Verdict:
        needed = self._needed
        hopeless = len(self.there) + len(self.pending) < needed
        if hopeless or not self._required.isdisjoint(self.failed):
            return Verdict.FAIL
        if not self.pending:
            return Verdict.RUN
        enough = not waits and len(self.there) >= needed and self._required.isdisjoint(self.pending)
        return Verdict.RUN if enough else Verdict.WAIT
