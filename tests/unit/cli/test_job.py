"""What `mesh job` shows of a mesh's jobs, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mesh.cli.main import main
from mesh.errors import NodeFailed, Overloaded, Unavailable
from mesh.jobs.records import Attempt, Callback, Job, JobState, Lane, Progress
from mesh.tensors import Tensors
from mesh.v1 import call_pb2
from tests.unit.jobs.telling import TellingStore, gateway, job_of, service_of

NOON = 1_800_014_400.0  # 2027-01-15 12:00:00 UTC
OUTPUTS = Tensors({"label": np.array([7, 2]), "score": np.array([0.25, 0.5], np.float32)})
FULL = Overloaded("full", node="large", retry_after_s=0.5)
FIRST = Attempt(number=1, worker="jobs-0/41", start_time=NOON + 1, end_time=NOON + 1.25, error=FULL)
SECOND = Attempt(number=2, worker="jobs-1/42", start_time=NOON + 3)
QUEUED = job_of("a", rows=2, submit_time=NOON, request_id="mine")
AGAIN = replace(QUEUED, attempts=(FIRST,), attempt_count=1, next_attempt_time=NOON + 3)
RUNNING = replace(QUEUED, state=JobState.RUNNING, attempts=(FIRST, SECOND), attempt_count=2)
ENDED = replace(
    RUNNING, end_time=NOON + 4, expire_time=NOON + 86_400, attempts=(FIRST, replace(SECOND, end_time=NOON + 4))
)
DONE = replace(ENDED, state=JobState.DONE, outputs=OUTPUTS)
FAILED = replace(ENDED, state=JobState.FAILED, error=NodeFailed("broken\n", node="large"))
CANCELLED = replace(ENDED, state=JobState.CANCELLED)
EXPIRED = job_of("a", JobState.EXPIRED, graph="digits", submit_time=NOON)

Command = Callable[..., int]


@contextmanager
def serving(store: TellingStore | None) -> Generator[str]:
    """A gateway in a thread of its own: the command has the main one, where it waits for Ctrl-C."""
    address = ""
    up = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        nonlocal address
        async with AsyncExitStack() as lifetime:
            service = None if store is None else service_of(store, "hook.example")
            address = await lifetime.enter_async_context(gateway(service))
            up.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(30)
        yield address
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)
        loop.close()


@pytest.fixture
def store() -> TellingStore:
    return TellingStore()


@pytest.fixture
def address(store: TellingStore) -> Generator[str]:
    with serving(store) as where:
        yield where


def expect(store: TellingStore, *events: Job | Progress) -> None:
    """The job as it stands, and what it comes to."""
    assert isinstance(events[0], Job)
    store.jobs["a"] = events[0]
    for event in events[1:]:
        store.events.put_nowait(event)


def lines(text: str) -> list[str]:
    return [re.sub(r"^ *[\d.]+ ms", "T", line) for line in text.splitlines()]


# Submitting.


def test_submitting_prints_the_id_and_nothing_else(
    store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--priority", "low", "--timeout", "90s", "--callback", "https://hook.example/x", "--timings"]
    assert main(["job", "submit", address, "-i", "x=[[1, 2], [3, 4]]", *arguments]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("job-0\n", "")
    ((_, work, key),) = store.calls
    assert work.inputs == Tensors({"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert (work.lane, work.report, key) == (Lane.LOW, True, "")
    assert work.deadline == 1_800_000_090.0
    assert work.callback == Callback(url="https://hook.example/x")


def test_a_job_that_was_there_already_is_said_to_be(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "submit", address, "-i", "x=[[1, 2]]", "--key", "k"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("job-0\n", "was there already: queued\n")


def test_each_row_may_become_a_job(store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = 150
    values = json.dumps([[row, 0] for row in range(rows)])
    assert main(["job", "submit", address, "-i", f"x={values}", "--each", "--key", "k", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["row"] for one in told] == list(range(rows))
    assert len({one["id"] for one in told}) == rows
    assert {key for _, _, key in store.calls} == {f"k/{row}" for row in range(rows)}
    asked = {key: work.inputs["x"].tolist() for _, work, key in store.calls}
    assert asked == {f"k/{row}": [[row, 0]] for row in range(rows)}


def test_rows_that_were_stored_are_told_when_one_is_refused(
    store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.trouble = Overloaded("as many jobs wait as may", retry_after_s=1.5)
    assert main(["job", "submit", address, "-i", "x=[[1, 2], [3, 4]]", "--each"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "0 of 2 rows are stored",
        "RESOURCE_EXHAUSTED: row 0: as many jobs wait as may; try again after 1.5s",
    ]


def test_submitting_and_waiting_shows_the_id_the_way_and_the_answer(
    store: TellingStore, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect(store, QUEUED, replace(DONE, id="job-1"))
    assert main(["job", "submit", address, "-i", "x=[[1, 2]]", "--wait", "-o", str(tmp_path / "out.npz")]) == 0
    assert lines(capsys.readouterr().out) == [
        "job-1",
        "T  queued",
        "T  done after 2 attempts",
        "row  label: INT64[2]  score: FP32[2]",
        "  0  7                0.2500",
        "  1  2                0.5000",
    ]
    assert np.load(tmp_path / "out.npz")["label"].tolist() == [7, 2]


# Watching.


def test_watching_shows_each_state_each_branch_and_the_answer(
    store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    some = Tensors({"label": np.array([2])}, sources=[1])
    expect(store, QUEUED, RUNNING, Progress(2, "small", some), Progress(2, "large", FULL), AGAIN, DONE)
    assert main(["job", "watch", address, "a"]) == 0
    assert lines(capsys.readouterr().out) == [
        "T  queued",
        "T  running: attempt 2 at jobs-1/42",
        "T  small  label: INT64[1] 2; of rows 1",
        "T  large  RESOURCE_EXHAUSTED: full",
        "T  queued again after 1 attempt, the next at 2027-01-15 12:00:03 UTC: RESOURCE_EXHAUSTED: node large: full",
        "T  done after 2 attempts",
        "row  label: INT64[2]  score: FP32[2]",
        "  0  7                0.2500",
        "  1  2                0.5000",
    ]


def test_watching_for_programs_is_an_object_a_line(
    store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expect(store, RUNNING, Progress(2, "small", OUTPUTS), Progress(2, "large", FULL), DONE)
    assert main(["job", "watch", address, "a", "--json"]) == 0
    running, small, large, done = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (running["id"], running["state"], running["attempt_count"]) == ("a", "running", 2)
    assert (small["attempt"], small["node"], small["outputs"]["label"]["data"]) == (2, "small", [7, 2])
    assert (large["node"], large["error"]["code"]) == ("large", "RESOURCE_EXHAUSTED")
    assert done["outputs"]["score"] == {"datatype": "FP32", "shape": [2], "data": [0.25, 0.5]}
    assert done["end_time"] == "2027-01-15T12:00:04.000000Z"
    assert done["attempts"][0]["error"]["retry_after_ms"] == 500
    assert all("at_ms" in one for one in (running, small, large, done))


@pytest.mark.parametrize(
    ("ended", "shown", "told"),
    [
        (FAILED, r"failed after 2 attempts: INTERNAL: node large: broken\n", "INTERNAL: node large: broken\n"),
        (CANCELLED, "cancelled", "CANCELLED: job a was cancelled"),
        (
            EXPIRED,
            "expired: it was over so long ago that its result is gone",
            "NOT_FOUND: job a is expired: its result is gone",
        ),
    ],
    ids=lambda value: value.state.value if isinstance(value, Job) else "",
)
def test_a_watch_whose_job_has_no_result_fails_by_what_it_ended_in(
    ended: Job, shown: str, told: str, store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expect(store, ended)
    assert main(["job", "watch", address, "a"]) == 1
    said = capsys.readouterr()
    assert lines(said.out) == [f"T  {shown}"]
    assert said.err == f"{told}\n"


# One job, many jobs.

ATTEMPTS = [
    "attempt  worker     began                     took",
    "      1  jobs-0/41  2027-01-15 12:00:01 UTC  250ms  RESOURCE_EXHAUSTED: node large: full",
    "      2  jobs-1/42  2027-01-15 12:00:03 UTC     1s",
]


def test_a_job_is_shown_with_its_attempts_and_outputs(
    store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.jobs["a"] = replace(DONE, replay_of="b", deadline=NOON + 60, attempt_count=9)
    assert main(["job", "get", address, "a"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "job         a",
        "state       done after 9 attempts",
        "graph       digits, 2 rows",
        "priority    normal",
        "submitted   2027-01-15 12:00:00 UTC",
        "due         2027-01-15 12:01:00 UTC",
        "over        2027-01-15 12:00:04 UTC, 4s later",
        "kept until  2027-01-16 12:00:00 UTC",
        "repeats     b",
        "request     mine",
        "",
        *ATTEMPTS,
        "… and 7 more between them",
        "",
        "row  label: INT64[2]  score: FP32[2]",
        "  0  7                0.2500",
        "  1  2                0.5000",
    ]


STANDINGS = {
    "queued": QUEUED,
    "queued again after 1 attempt, the next at 2027-01-15 12:00:03 UTC: RESOURCE_EXHAUSTED: node large: full": AGAIN,
    "running: attempt 2 at jobs-1/42": RUNNING,
    "done after 2 attempts": DONE,
    r"failed after 2 attempts: INTERNAL: node large: broken\n": FAILED,
    "cancelled": CANCELLED,
    "expired: it was over so long ago that its result is gone": EXPIRED,
}


@pytest.mark.parametrize(("shown", "job"), STANDINGS.items(), ids=[text[:12] for text in STANDINGS])
def test_where_a_job_stands_is_never_confused(
    shown: str, job: Job, store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.jobs["a"] = job
    assert main(["job", "get", address, "a"]) == 0
    state = capsys.readouterr().out.splitlines()[1]
    assert re.sub("^state +", "", state) == shown
    assert main(["job", "get", address, "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == job.state.value


def test_an_id_that_nobody_gave_is_unknown(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("get", "watch", "cancel", "replay"):
        assert main(["job", verb, address, "nobody"]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", "NOT_FOUND: no job is called 'nobody' here\n")


def test_where_time_went_is_shown_where_it_was_kept(
    store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = call_pb2.CallReport(node_timings=[call_pb2.NodeTiming(node="small", worker="jobs-1", pid=42, rows=2)])
    report.node_timings[0].compute.FromMilliseconds(5)
    store.jobs["a"] = replace(DONE, report=report)
    assert main(["job", "get", address, "a"]) == 0
    shown = [re.sub(r"  +", "  ", line) for line in capsys.readouterr().out.splitlines()]
    assert shown[-1] == "small  jobs-1  42  2  0.00  5.00  0.00"
    assert main(["job", "get", address, "a", "--json"]) == 0
    (timing,) = json.loads(capsys.readouterr().out)["node_timings"]
    assert (timing["node"], timing["compute_ms"]) == ("small", 5)


def test_jobs_are_listed_a_line_each(store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    long = replace(FAILED, id="b", error=Unavailable("gone " * 40), rows=12_345)
    store.jobs = {"a": RUNNING, "b": long}
    assert main(["job", "list", address]) == 0
    error = f"UNAVAILABLE: {'gone ' * 40}"[:69]
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "job  state    priority  submitted                  rows  attempts",
        "a    running  normal    2027-01-15 12:00:00 UTC       2         2",
        f"b    failed   normal    2027-01-15 12:00:00 UTC  12,345         2  {error}...",
    ]
    assert said.err == ""
    assert main(["job", "list", address, "--state", "failed", "--state", "done", "--json"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ["b"]
    assert store.calls[-1][1] == {JobState.FAILED, JobState.DONE}


def test_a_list_that_was_cut_says_so(store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.jobs = {"a": RUNNING, "b": DONE}
    store.next_token = "on"
    assert main(["job", "list", address, "--limit", "3"]) == 0
    assert [call[2:4] for call in store.calls] == [(3, ""), (1, "on")]
    assert capsys.readouterr().err == "there may be more than 3: --limit shows them\n"


# Ending and repeating.


@pytest.mark.parametrize(
    ("job", "code", "told"), [(CANCELLED, 0, "cancelled\n"), (DONE, 1, "done after 2 attempts\n")], ids=["it", "late"]
)
def test_cancelling_says_what_became_of_it(
    job: Job, code: int, told: str, store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.jobs["a"] = job
    assert main(["job", "cancel", address, "a"]) == code
    assert capsys.readouterr().out == told


def test_replaying_prints_the_new_id(store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.jobs["a"] = FAILED
    assert main(["job", "replay", address, "a"]) == 0
    assert main(["job", "replay", address, "a", "--json"]) == 0
    new, told = capsys.readouterr().out.splitlines()
    assert (new, json.loads(told)["replay_of"]) == ("again", "a")


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["submit", "ADDRESS"], 2, "--input is missing for x: FP32[rows, 2]; write x=VALUE or x=@FILE"),
        (["submit", "ADDRESS", "-i", "x=[[1, 2]]", "--each", "--wait"], 2, "--wait follows one job"),
        (["submit", "ADDRESS", "-i", "x=[[1, 2]]", "-o", "a.npz"], 2, "--output saves an answer: it goes with --wait"),
        (["submit", "ADDRESS", "-i", "x=[[1, 2, 3]]"], 1, "INVALID_ARGUMENT: tensor 'x' has shape [1, 3] where"),
        (
            ["submit", "ADDRESS", "-i", "x=[[1, 2]]", "--callback", "http://other.example"],
            1,
            "INVALID_ARGUMENT: callbacks to other.example:80 are not allowed",
        ),
        (["submit", "ADDRESS", "-i", "x=[[1, 2]]", "--graph", "letters"], 1, "NOT_FOUND: no graph is called 'letters'"),
        (["get", "localhost:8001", "a"], 2, "'localhost:8001' is no address"),
        (["get", "unix:/nowhere", "a"], 1, "UNAVAILABLE: unix:/nowhere cannot be reached: nobody answers there"),
        (["get", "ADDRESS", "a", "-o", "a.npz"], 2, "a.npz is not written: the job has no outputs (queued)"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], code: int, told: str, store: TellingStore, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.jobs["a"] = QUEUED
    assert main(["job", *(address if one == "ADDRESS" else one for one in arguments)]) == code
    said = capsys.readouterr().err
    assert said.startswith(told)
    assert said.count("\n") == 1


def test_a_mesh_without_jobs_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(None) as where:
        assert main(["job", "list", where]) == 1
    assert capsys.readouterr().err == f"NOT_FOUND: {where} takes no jobs: its topology needs a jobs: block\n"


@pytest.mark.parametrize("given", ["0", "-1", "x", "1000001"])
def test_a_limit_is_a_number_of_jobs(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["job", "list", "unix:/nowhere", f"--limit={given}"])
    assert "is no number from 1 to 1,000,000" in capsys.readouterr().err
