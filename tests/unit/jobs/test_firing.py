"""What a schedule does at a moment: each due time meets one end, and at most one batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.jobs.schedules.firing import (
    BEGIN_WITHIN_S,
    GRACE_S,
    HISTORY,
    MOST_WAITING,
    FiringState,
    Phase,
    Record,
    Rules,
    Seen,
    Skip,
    begun,
    failed,
    look,
    next_look,
)
from mesh.jobs.schedules.times import Times

HOUR = 3600
GOING, DONE = Seen(Phase.GOING), Seen(Phase.DONE)
HOURLY = Times("0 * * * *")


@dataclass
class Schedule:
    """A schedule whose batches begin at once and end when the test says so."""

    rules: Rules
    now: float = 0.0
    record: Record | None = None
    begun: list[int] = field(default_factory=list[int])
    """Due times, in the order in which their batches began."""
    cancelled: list[int] = field(default_factory=list[int])
    fates: dict[int, str] = field(default_factory=dict[int, str])
    """What each due time has come to; each once."""
    _skips: int = 0

    def look(self, now: float, seen: Seen | None = GOING) -> Record:
        self.now = now
        before = self.record
        record = look(self.rules, before, now, seen)
        skipped = record.skips if before is None else record.skips[: len(record.skips) - len(before.skips)]
        for skip in skipped:
            self._fate(skip.due, skip.reason)
        current = record.current
        if current is not None and current.state is FiringState.BEGINNING:
            self._fate(current.due, "begun")
            self.begun.append(current.due)
            record = begun(record, f"batch-{current.due}")
        if current is not None and current.ending and current.due not in self.cancelled:
            self.cancelled.append(current.due)
        self.record = record
        return record

    def _fate(self, due: int, fate: str) -> None:
        assert due not in self.fates, f"{due} was {self.fates[due]}, and now {fate}"
        self.fates[due] = fate

    def reasons(self) -> dict[int, str]:
        return {due // HOUR: fate for due, fate in self.fates.items()}


def hourly(**rules: object) -> Schedule:
    made = Schedule(Rules(times=HOURLY, **rules))  # type: ignore[arg-type]
    made.look(0.5)
    return made


# ===== One after another =====


def test_nothing_was_missed_before_a_schedule_was_first_looked_at() -> None:
    schedule = Schedule(Rules(times=HOURLY, catch_up="all"))
    record = schedule.look(1000 * HOUR + 5.0)
    assert (record.handled, record.current, record.skips) == (1000 * HOUR + 5, None, ())


def test_it_begins_when_it_is_due_and_not_before() -> None:
    schedule = hourly()
    assert schedule.look(HOUR - 0.001).current is None
    record = schedule.look(float(HOUR))
    assert schedule.begun == [HOUR]
    assert record.current is not None
    assert record.current.batch == f"batch-{HOUR}"
    assert schedule.look(HOUR + 1.0) == record, "nothing is to be done, so nothing is written"


@pytest.mark.parametrize(
    ("seen", "state", "error"),
    [
        (DONE, FiringState.DONE, ""),
        (Seen(Phase.FAILED, "3 rows failed"), FiringState.FAILED, "3 rows failed"),
        (Seen(Phase.CANCELLED), FiringState.CANCELLED, ""),
        (None, FiringState.FORGOTTEN, ""),
    ],
)
def test_what_became_of_a_batch_is_remembered(seen: Seen | None, state: FiringState, error: str) -> None:
    schedule = hourly()
    schedule.look(float(HOUR))
    record = schedule.look(HOUR + 30.0, seen)
    assert record.current is None
    (run,) = record.runs
    assert (run.due, run.state, run.error, run.end_time) == (HOUR, state, error, HOUR + 30.0)


def test_only_so_many_runs_are_remembered() -> None:
    schedule = hourly()
    for hour in range(1, HISTORY + 20):
        schedule.look(float(hour * HOUR))
        schedule.look(hour * HOUR + 1.0, DONE)
    assert schedule.record is not None
    assert [run.due // HOUR for run in schedule.record.runs] == list(range(HISTORY + 19, 19, -1))


# ===== Overlap =====


def test_skip_leaves_out_what_is_due_while_the_one_before_runs() -> None:
    schedule = hourly(overlap="skip")
    for hour in (1, 2, 3):
        schedule.look(float(hour * HOUR))
    schedule.look(3 * HOUR + 1.0, DONE)
    schedule.look(4.0 * HOUR)
    assert schedule.begun == [HOUR, 4 * HOUR]
    assert schedule.reasons()[2] == schedule.reasons()[3] == "the one before was not over"


def test_wait_begins_each_when_the_one_before_is_over() -> None:
    schedule = hourly(overlap="wait")
    for hour in (1, 2, 3):
        schedule.look(float(hour * HOUR))
    assert schedule.begun == [HOUR]
    schedule.look(3.5 * HOUR, DONE)
    schedule.look(3.6 * HOUR, DONE)
    assert schedule.begun == [HOUR, 2 * HOUR, 3 * HOUR], "though by then they were due long ago"


def test_cancel_ends_the_batch_that_runs_and_begins_when_it_is_over() -> None:
    schedule = hourly(overlap="cancel")
    schedule.look(1.0 * HOUR)
    schedule.look(2.0 * HOUR)
    assert schedule.cancelled == [HOUR]
    assert schedule.begun == [HOUR]
    schedule.look(3.0 * HOUR)
    record = schedule.look(3.1 * HOUR, Seen(Phase.CANCELLED))
    assert schedule.begun == [HOUR, 3 * HOUR]
    assert schedule.reasons()[2] == "the next one was due"
    assert (record.runs[0].state, record.runs[0].ending) == (FiringState.CANCELLED, "the next one was due")


def test_only_so_many_wait_and_the_oldest_go() -> None:
    schedule = hourly(overlap="wait")
    for hour in range(1, MOST_WAITING + 4):
        schedule.look(float(hour * HOUR))
    record = schedule.look(float((MOST_WAITING + 4) * HOUR))
    assert [due // HOUR for due in record.waiting] == list(range(5, MOST_WAITING + 5))
    assert [schedule.reasons()[hour] for hour in (2, 3, 4)] == ["too many waited"] * 3


# ===== Windows =====


def test_a_batch_is_cancelled_when_its_window_ends() -> None:
    schedule = hourly(window_s=1800.0)
    schedule.look(1.0 * HOUR)
    schedule.look(1.5 * HOUR - 0.001)
    assert schedule.cancelled == []
    schedule.look(1.5 * HOUR)
    assert schedule.cancelled == [HOUR]
    record = schedule.look(1.6 * HOUR, Seen(Phase.CANCELLED))
    assert (record.runs[0].state, record.runs[0].ending) == (FiringState.CANCELLED, "its window ended")


def test_one_that_did_not_begin_within_its_window_is_skipped() -> None:
    schedule = hourly(window_s=1.5 * HOUR, overlap="wait")
    schedule.look(1.0 * HOUR)
    schedule.look(2.0 * HOUR)
    record = schedule.look(3.5 * HOUR)
    assert schedule.reasons() == {1: "begun", 2: "its window ended"}
    assert record.waiting == (3 * HOUR,)


def test_one_that_was_missed_is_made_up_for_within_its_window_only() -> None:
    schedule = hourly(window_s=1800.0, catch_up="all")
    schedule.look(3.25 * HOUR)
    assert schedule.reasons() == {1: "its window ended", 2: "its window ended", 3: "begun"}


# ===== Catching up =====


@pytest.mark.parametrize(
    ("catch_up", "begins"), [("none", []), ("latest", [4]), ("all", [1, 2, 3, 4])], ids=["none", "latest", "all"]
)
@pytest.mark.parametrize("overlap", ["skip", "wait", "cancel"])
def test_what_was_missed_is_made_up_for(catch_up: str, overlap: str, begins: list[int]) -> None:
    schedule = hourly(catch_up=catch_up, overlap=overlap)
    schedule.look(4.5 * HOUR)
    for minute in range(1, 9):
        schedule.look(4.5 * HOUR + minute, DONE)
    assert [due // HOUR for due in schedule.begun] == begins
    assert set(schedule.reasons()) == {1, 2, 3, 4}
    assert all(fate in ("begun", "missed") for fate in schedule.fates.values())


@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_what_is_seen_a_little_late_was_not_missed(catch_up: str) -> None:
    schedule = hourly(catch_up=catch_up)
    schedule.look(float(HOUR + GRACE_S))
    assert schedule.begun == [HOUR]


def test_the_latest_is_not_made_up_for_where_one_is_on_time() -> None:
    schedule = hourly(catch_up="latest")
    schedule.look(5.0 * HOUR)
    assert schedule.begun == [5 * HOUR]
    assert schedule.reasons()[4] == "missed"


def test_of_very_many_missed_the_latest_are_made_up_for_and_the_others_told_as_one() -> None:
    schedule = hourly(catch_up="all")
    record = schedule.look(10_000.5 * HOUR)
    assert schedule.begun == [(10_001 - MOST_WAITING) * HOUR]
    assert len(record.waiting) == MOST_WAITING - 1
    assert record.skips == (Skip((10_000 - MOST_WAITING) * HOUR, "missed", and_before=True),)


def test_a_clock_that_is_put_back_fires_nothing_twice() -> None:
    schedule = hourly()
    schedule.look(1.0 * HOUR)
    schedule.look(1.1 * HOUR, DONE)
    schedule.look(0.5 * HOUR)
    record = schedule.look(1.0 * HOUR)
    assert schedule.begun == [HOUR]
    assert next_look(schedule.rules, record, 1.99 * HOUR) == pytest.approx(0.01 * HOUR)
    schedule.look(2.0 * HOUR)
    assert schedule.begun == [HOUR, 2 * HOUR]


def test_a_schedule_whose_times_were_changed_begins_anew() -> None:
    schedule = hourly(overlap="wait", catch_up="all")
    schedule.look(1.0 * HOUR)
    schedule.look(2.0 * HOUR)
    schedule.rules = replace(schedule.rules, times=Times("*/10 * * * *"))
    record = schedule.look(2.9 * HOUR)
    assert schedule.reasons()[2] == "the schedule was changed"
    assert record.current is not None, "what runs goes on"
    assert (record.handled, record.waiting) == (int(2.9 * HOUR), ())
    assert schedule.look(3.0 * HOUR).waiting == (3 * HOUR,)


def test_a_change_of_its_times_wakes_a_schedule_whose_clock_was_years_ahead() -> None:
    schedule = hourly()
    schedule.look(1000.0 * HOUR)
    schedule.look(1000.0 * HOUR + 1, DONE)
    assert schedule.look(2.0 * HOUR).handled == 1000 * HOUR
    schedule.rules = replace(schedule.rules, times=Times("0 */1 * * *"))
    assert schedule.look(2.5 * HOUR).handled == 2.5 * HOUR
    schedule.look(3.0 * HOUR)
    assert schedule.begun == [1000 * HOUR, 3 * HOUR]


# ===== Beginning =====


def test_one_that_cannot_begin_is_tried_for_a_day() -> None:
    rules = Rules(times=HOURLY, overlap="wait")
    record = look(rules, look(rules, None, 0.0), float(HOUR))
    again = look(rules, record, HOUR + 30.0)
    assert again == record
    assert next_look(rules, again, HOUR + 30.0) <= 60
    given_up = look(rules, replace(record, handled=10**6), float(HOUR + BEGIN_WITHIN_S))
    assert given_up.runs[0].state is FiringState.FAILED
    assert "could not be begun" in given_up.runs[0].error


def test_one_that_is_refused_has_failed_and_the_next_begins() -> None:
    rules = Rules(times=HOURLY, catch_up="all")
    record = look(rules, look(rules, None, 0.0), 2.5 * HOUR)
    refused = failed(record, "no such folder", 2.5 * HOUR)
    assert next_look(rules, refused, 2.5 * HOUR) == 0
    record = look(rules, refused, 2.5 * HOUR)
    assert (record.runs[0].due, record.runs[0].error) == (HOUR, "no such folder")
    assert record.current is not None
    assert record.current.due == 2 * HOUR


# ===== Whatever happens =====

RULES = st.builds(
    Rules,
    times=st.builds(
        Times,
        st.sampled_from(["0 * * * *", "*/20 * * * *", "30 2 * * *", "0,30 2,3 * * *", "15 */2 * * *"]),
        st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    ),
    window_s=st.none() | st.sampled_from([300.0, 3600.0, 6 * 3600.0]),
    overlap=st.sampled_from(["skip", "wait", "cancel"]),
    catch_up=st.sampled_from(["none", "latest", "all"]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([1.0, 10.0, 60.0, 600.0, 3600.0, 7000.0, -1.0, -4000.0]),
        st.sampled_from([GOING, GOING, DONE, Seen(Phase.FAILED), None]),
    ),
    max_size=16,  # of at most 7000 s: so that at most 93 are due, and no bound is reached
)
STARTS = st.sampled_from([1711839000, 1729980000, 1720000000])
"""An hour or two before clocks are put forward and back in Berlin, and in summer."""


def driven(rules: Rules, start: int, steps: list[tuple[float, Seen | None]]) -> Schedule:
    """A schedule that is looked at, with the clock put on or back before each look."""
    schedule = Schedule(rules)
    schedule.look(start)
    for jump, seen in steps:
        schedule.look(schedule.now + jump, seen)
        assert schedule.record is not None
        assert 0 <= next_look(rules, schedule.record, schedule.now) <= 60
    return schedule


@given(RULES, STARTS, STEPS)
def test_each_due_time_meets_one_end_and_they_begin_in_order(
    rules: Rules, start: int, steps: list[tuple[float, Seen | None]]
) -> None:
    schedule = driven(rules, start, steps)
    record = schedule.record
    assert record is not None
    dues, more = rules.times.latest(start, record.handled, 10_000)
    assert not more
    assert sorted([*schedule.fates, *record.waiting]) == dues, "each was looked at, and once (see Schedule._fate)"
    assert schedule.begun == sorted(set(schedule.begun))
    assert list(record.waiting) == sorted(record.waiting)
    assert all(due > schedule.begun[-1] for due in record.waiting if schedule.begun)


@given(RULES, STARTS, STEPS)
def test_no_due_time_is_lost_where_all_are_made_up_for(
    rules: Rules, start: int, steps: list[tuple[float, Seen | None]]
) -> None:
    rules = replace(rules, catch_up="all", overlap="wait", window_s=None)
    schedule = driven(rules, start, steps)
    furthest = max([start, *(start + sum(jump for jump, _ in steps[:count]) for count in range(1, len(steps) + 1))])
    for _ in range(200):
        schedule.look(schedule.now, DONE)
    dues, _ = rules.times.latest(start, furthest, 10_000)
    assert schedule.begun == dues


@given(RULES, STARTS, STEPS)
def test_one_batch_of_a_schedule_runs_at_a_time_and_within_its_window(
    rules: Rules, start: int, steps: list[tuple[float, Seen | None]]
) -> None:
    schedule = Schedule(rules)
    schedule.look(start)
    for jump, seen in steps:
        before = schedule.record
        record = schedule.look(schedule.now + jump, seen)
        if before is not None and before.current is not None and seen is GOING:
            assert record.current is not None
            assert record.current.batch == before.current.batch
        if record.current is not None and schedule.now >= rules.window_end(record.current.due):
            assert record.current.ending
