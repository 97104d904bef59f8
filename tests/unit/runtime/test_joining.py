from __future__ import annotations

import pytest

from mesh.errors import DeadlineExceeded, NodeFailed
from mesh.runtime.joining import Joining, Verdict
from mesh.topology.graph import Join

RUN, WAIT, FAIL = Verdict.RUN, Verdict.WAIT, Verdict.FAIL
FIRST = Join(quorum=1)
TWO = Join(quorum=2)
ALL = Join(quorum=3, required=("a", "b", "c"), waits=True)
NEEDS_A = Join(quorum=1, required=("a",))
BY_DEADLINE = Join(quorum=1, waits=True, deadline_s=1)
TWO_BY_DEADLINE = Join(quorum=2, waits=True, deadline_s=1)
OF_A = NodeFailed("a", node="a")


def told(policy: Join, what: str) -> list[Verdict]:
    """What a join of a, b and c says to events in turn: `a` is there, `a0` is there without rows, `a-` failed, `!`."""
    joining = Joining(policy, "abc")
    found: list[Verdict] = []
    for event in what.split():
        match event[1:]:
            case "" if event == "!":
                found.append(joining.due())
            case "-":
                found.append(joining.fail(event[0], NodeFailed(event[0], node=event[0])))
            case rows:
                found.append(joining.answered(event[0], has_rows=rows != "0"))
    return found


@pytest.mark.parametrize(
    ("policy", "events", "verdicts"),
    [
        (FIRST, "b", [RUN]),
        (FIRST, "b- a- c", [WAIT, WAIT, RUN]),
        (FIRST, "b- a- c-", [WAIT, WAIT, FAIL]),
        (FIRST, "a0 b", [WAIT, RUN]),
        (FIRST, "a0 b0 c0", [WAIT, WAIT, RUN]),
        (FIRST, "a0 b0 c-", [WAIT, WAIT, FAIL]),
        (TWO, "a b", [WAIT, RUN]),
        (TWO, "a- b c", [WAIT, WAIT, RUN]),
        (TWO, "a- b-", [WAIT, FAIL]),
        (TWO, "a0 b-", [WAIT, FAIL]),
        (TWO, "a0 b0 c", [WAIT, WAIT, RUN]),
        (ALL, "a b c", [WAIT, WAIT, RUN]),
        (ALL, "a b-", [WAIT, FAIL]),
        (ALL, "a b0 c", [WAIT, WAIT, RUN]),
        (NEEDS_A, "b c a", [WAIT, WAIT, RUN]),
        (NEEDS_A, "a", [RUN]),
        (NEEDS_A, "b a-", [WAIT, FAIL]),
        (NEEDS_A, "b- c- a", [WAIT, WAIT, RUN]),
        (BY_DEADLINE, "a !", [WAIT, RUN]),
        (BY_DEADLINE, "a b- c", [WAIT, WAIT, RUN]),
        (BY_DEADLINE, "a b c", [WAIT, WAIT, RUN]),
        (BY_DEADLINE, "a- b- !", [WAIT, WAIT, FAIL]),
        (BY_DEADLINE, "!", [FAIL]),
        (BY_DEADLINE, "a0 !", [WAIT, FAIL]),
        (BY_DEADLINE, "a0 b0 c !", [WAIT, WAIT, RUN, RUN]),
        (TWO_BY_DEADLINE, "a !", [WAIT, FAIL]),
        (TWO_BY_DEADLINE, "a b !", [WAIT, WAIT, RUN]),
        (TWO_BY_DEADLINE, "a- b-", [WAIT, FAIL]),
        (TWO_BY_DEADLINE, "a- a-", [WAIT, WAIT]),
    ],
)
def test_a_join_says_when_to_run(policy: Join, events: str, verdicts: list[Verdict]) -> None:
    assert told(policy, events) == verdicts


def test_a_join_that_fails_says_what_failed_first_or_what_is_missing() -> None:
    joining = Joining(TWO, "abc")
    joining.fail("c", NodeFailed("c", node="c"))
    joining.fail("a", OF_A)
    assert joining.error() == NodeFailed("c", node="c")
    joining = Joining(NEEDS_A, "abc")
    joining.fail("c", NodeFailed("c", node="c"))
    joining.fail("a", OF_A)
    assert joining.error() is OF_A
    joining = Joining(TWO_BY_DEADLINE, "abc")
    joining.answered("b", has_rows=True)
    assert joining.due() is FAIL
    assert joining.error() == DeadlineExceeded("1 of 2 branches were there in time; missing: a, c")
