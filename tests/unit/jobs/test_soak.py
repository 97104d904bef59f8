"""The soak's own judgement: whatever would be a loss is found to be one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bench.soak.killing import KINDS, plan, shared_out
from bench.soak.ledger import Ledger, task_of
from bench.soak.node import steps
from bench.soak.told import found, stalls, table
from mesh.errors import Unavailable
from mesh.jobs.records import Attempt, Job, JobState, Lane
from mesh.tensors import Tensors

NUMBER = 2  # the task whose number is 3: seven steps


def done(number: int = NUMBER, *, mark: int = 1, taken: int | None = None) -> Job:
    """A job as it should end."""
    rows = task_of(number).inputs.rows
    answer = np.zeros(rows, np.int64)
    answer[0] = task_of(number).answer if taken is None else taken
    attempt = Attempt(number=1, worker="jobs-0/1", start_time=1.0, end_time=2.0)
    return Job(
        id=f"id-{number}",
        graph="soak",
        state=JobState.DONE,
        lane=Lane.NORMAL,
        submit_time=0.5,
        end_time=2.0,
        expire_time=99.0,
        attempts=(attempt,),
        attempt_count=1,
        rows=rows,
        outputs=Tensors({"steps": answer, "mark": np.full(rows, mark)}),
    )


def acknowledged(jobs: int = 10, number: int = NUMBER) -> Ledger:
    ledger = Ledger(jobs)
    ledger.acknowledge(number, f"id-{number}")
    return ledger


def test_steps_are_those_of_collatz() -> None:
    assert [steps(n) for n in (0, 1, 2, 3, 6, 27)] == [-1, 0, 1, 7, 8, 111]


def test_an_end_that_stays_as_it_was_first_seen_is_no_fault() -> None:
    ledger = acknowledged()
    for _ in range(3):
        ledger.look(NUMBER, done())
    assert (ledger.acknowledged, ledger.over, ledger.looks, ledger.faults) == (1, 1, 3, Counter())


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (replace(done(), state=JobState.FAILED, error=Unavailable("gone"), outputs=None), "failed, not done"),
        (replace(done(), state=JobState.EXPIRED, outputs=None), "expired, not done"),
        (replace(done(), state=JobState.CANCELLED, outputs=None), "cancelled, not done"),
        (replace(done(), outputs=None), "a wrong answer"),
        (done(taken=8), "a wrong answer"),
        (done(number=11), "a wrong answer"),
    ],
    ids=["failed", "expired", "cancelled", "without outputs", "wrong", "another's"],
)
def test_any_end_but_the_right_answer_is_a_fault(other: Job, kind: str) -> None:
    ledger = acknowledged()
    ledger.look(NUMBER, other)
    assert ledger.faults == {kind: 1}


def test_a_large_job_with_one_wrong_row_is_a_fault() -> None:
    ledger, job = acknowledged(20, 11), done(11)
    ledger.look(11, job)
    assert not ledger.faults
    assert job.outputs is not None
    spoilt = np.array(job.outputs["steps"])
    spoilt[-1] = 1
    ledger = acknowledged(20, 11)
    ledger.look(11, replace(job, outputs=Tensors({"steps": spoilt, "mark": job.outputs["mark"]})))
    assert ledger.faults == {"a wrong answer": 1}


@pytest.mark.parametrize(
    "other",
    [done(mark=2), replace(done(), end_time=3.0), replace(done(), attempt_count=2)],
    ids=["another execution's", "another time", "another attempt"],
)
def test_an_end_that_changes_is_seen_though_the_answer_is_the_same(other: Job) -> None:
    ledger = acknowledged()
    ledger.look(NUMBER, done())
    ledger.look(NUMBER, other)
    assert ledger.faults == {"an end that changed": 1}
    assert ledger.changed == {f"id-{NUMBER}"}


def test_one_key_with_two_ids_is_a_fault() -> None:
    ledger = acknowledged()
    ledger.acknowledge(NUMBER, f"id-{NUMBER}")
    assert not ledger.faults
    ledger.acknowledge(NUMBER, "another")
    assert ledger.faults == {"two ids for one key": 1}


def test_what_was_acknowledged_and_not_seen_to_end_is_lost() -> None:
    ledger = acknowledged()
    ledger.acknowledge(4, "id-4")
    ledger.look(4, done(4))
    told = found(ledger, [("worker", 0.0), ("worker", 1.0)], began=0.0, unanswered=3)
    assert (told["acknowledged"], told["lost"], told["kills"]) == (2, 1, {"worker": 2})
    assert "| lost | **1** |" in table({"topic": "soak", **told})


def test_tasks_are_the_same_in_each_run_and_of_every_sort() -> None:
    tasks = [task_of(number) for number in range(2000)]
    assert all(task.inputs == task_of(number).inputs for number, task in enumerate(tasks))
    assert {task.inputs.rows for task in tasks} == {1, 20_000}
    assert {task.watched for task in tasks} == {task.again for task in tasks} == {True, False}
    assert max(int(task.inputs["ms"][0]) for task in tasks) == 500


@pytest.mark.parametrize("kills", [0, 1, 7, 100, 1000])
def test_kills_are_shared_out_and_planned_in_their_order(kills: int) -> None:
    shares = shared_out(kills)
    assert set(shares) == set(KINDS)
    planned = plan(shares, 5000, seed=3)
    assert Counter(kill.kind for kill in planned) == Counter({kind: count for kind, count in shares.items() if count})
    assert [kill.after for kill in planned] == sorted(kill.after for kill in planned)
    assert all(0 < kill.after < 5000 and 0 <= kill.chance < 1 for kill in planned)
    assert planned == plan(shares, 5000, seed=3)
    assert kills < 7 or planned != plan(shares, 5000, seed=4)


def test_what_stands_still_is_put_down_to_the_kill_before() -> None:
    events = [1.0, 2.0, 5.5, 6.0, 6.1, 30.0, 30.1]
    assert stalls(events, [3.0]) == [23.9], "the longest that began within five seconds, and went on"
    assert stalls(events, [0.5]) == [3.5]
    assert stalls(events, [2.5, 5.0, 7.0]) == [3.0, 0.5, 23.0], "the second came while the first was not over"
    assert stalls(events, [12.0, 13.0]) == [18.0, 0.0]
    assert stalls(events, [31.0]) == [0.0]
    assert stalls([], [1.0]) == [0.0]
