"""When a schedule is due, held against a list of all seconds of the days around a change of clocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.jobs.schedules.times import Times

CHANGES = {
    "Europe/Berlin": ["2024-03-31", "2024-10-27"],
    "America/New_York": ["2024-03-10", "2024-11-03"],
    "Australia/Lord_Howe": ["2024-04-07", "2024-10-06"],  # by half an hour
    "Asia/Beirut": [
        "2024-03-31",
        "2024-10-27",
    ],  # at midnight: a day of 23 hours begins at one, and an evening comes twice
    "Europe/Dublin": ["2024-03-31", "2024-10-27"],  # where summer is the standard, and winter the exception
    "Pacific/Apia": ["2011-12-30"],  # a day that never was
    "America/Caracas": ["2016-05-01"],  # a new standard time, for good
    "Asia/Kathmandu": ["2024-06-01"],  # no change, and an offset of 5:45
    "UTC": ["2024-02-29"],
}
DAYS = [(zone, day) for zone, days in CHANGES.items() for day in days]


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp())


@cache
def minutes_around(zone: str, day: str) -> list[tuple[int, datetime]]:
    """Each minute from two days before to three days after, and what the clocks show then."""
    first = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) - 2 * 86400
    instants = range(first, first + 5 * 86400, 60)
    return [(instant, datetime.fromtimestamp(instant, ZoneInfo(zone)).replace(tzinfo=None)) for instant in instants]


@dataclass(frozen=True)
class Cron:
    """Minutes and hours, as sets; every day."""

    minutes: frozenset[int]
    hours: frozenset[int]

    def __str__(self) -> str:
        return f"{_listed(self.minutes)} {_listed(self.hours)} * * *"

    def due(self, zone: str, day: str) -> list[int]:
        """By the words of the rule, minute by minute."""
        shown = minutes_around(zone, day)
        if len(self.hours) == 24:
            return [instant for instant, wall in shown if wall.minute in self.minutes]
        found: set[int] = set()
        wall, last, position = shown[0][1], shown[-1][1], 0
        latest = shown[0][1] - timedelta(minutes=1)
        while wall <= last:
            if wall.minute in self.minutes and wall.hour in self.hours:
                # The first moment at which clocks have come to it, or past it.
                while latest < wall:
                    latest = max(latest, shown[position][1])
                    position += 1
                found.add(shown[position - 1][0])
            wall += timedelta(minutes=1)
        return sorted(found)


def _listed(numbers: frozenset[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


SOME_MINUTES = st.frozensets(st.integers(0, 59), min_size=1, max_size=5)
SOME_HOURS = st.frozensets(st.integers(0, 23), min_size=1, max_size=6) | st.just(frozenset(range(24)))
CRONS = st.builds(Cron, SOME_MINUTES, SOME_HOURS | st.just(frozenset(range(0, 24, 2))))


@given(CRONS, st.sampled_from(DAYS))
@example(Cron(frozenset({0, 15, 30, 45}), frozenset({2, 3})), DAYS[0])
@example(Cron(frozenset({0, 15, 30, 45}), frozenset({2, 3})), DAYS[1])
@example(Cron(frozenset({50}), frozenset(range(24))), DAYS[7])
@example(Cron(frozenset({10}), frozenset({10})), DAYS[10])
def test_it_is_due_when_the_rule_says_so_whichever_way_it_is_asked(cron: Cron, day: tuple[str, str]) -> None:
    times = Times(str(cron), day[0])
    expected = cron.due(*day)
    shown = minutes_around(*day)
    first, last = shown[0][0], shown[-1][0]
    # At the edges of what was listed the list does not know what came before.
    forward: list[int] = []
    due = times.after(first + 86400)
    while due is not None and due <= last:
        forward.append(due)
        due = times.after(due)
    assert forward == [instant for instant in expected if instant > first + 86400]
    backward, more = times.latest(first + 86400, last, 100_000)
    assert backward == forward
    assert not more


@given(CRONS, st.sampled_from(DAYS), st.integers(0, 3 * 86400), st.floats(0, 0.999))
def test_no_due_time_lies_between_those_before_and_after_an_instant(
    cron: Cron, day: tuple[str, str], offset: int, fraction: float
) -> None:
    times = Times(str(cron), day[0])
    now = minutes_around(*day)[0][0] + 86400 + offset + fraction
    before, after = times.up_to(now), times.after(now)
    assert before is not None
    assert after is not None
    assert before <= now < after
    assert times.after(before) == after
    assert times.up_to(after - 1) == before
    assert times.up_to(after) == after


@given(CRONS, st.sampled_from(DAYS), st.integers(1, 20))
def test_only_the_latest_are_told_where_there_are_more(cron: Cron, day: tuple[str, str], most: int) -> None:
    times = Times(str(cron), day[0])
    shown = minutes_around(*day)
    every, _ = times.latest(shown[0][0], shown[-1][0], 100_000)
    found, more = times.latest(shown[0][0], shown[-1][0], most)
    assert found == every[-most:]
    assert more == (len(every) > most)


@given(CRONS, st.sampled_from(DAYS))
@example(Cron(frozenset({0, 20}), frozenset(range(24))), DAYS[1])
@example(Cron(frozenset({0}), frozenset({10})), ("Pacific/Apia", "2011-12-30"))
def test_no_two_due_times_are_called_alike(cron: Cron, day: tuple[str, str]) -> None:
    times = Times(str(cron), day[0])
    shown = minutes_around(*day)
    every, _ = times.latest(shown[0][0], shown[-1][0], 100_000)
    labels = [times.label(due) for due in every]
    assert len(set(labels)) == len(labels)


def nights(cron: str, zone: str, after: str, count: int) -> list[str]:
    times = Times(cron, zone)
    due = at(after, zone)
    found: list[str] = []
    for _ in range(count):
        due = times.after(due)
        assert due is not None
        found.append(times.local(due).isoformat(timespec="minutes"))
    return found


def test_a_time_that_does_not_exist_is_due_when_clocks_go_forward() -> None:
    assert nights("30 2 * * *", "Europe/Berlin", "2024-03-29T12:00", 3) == [
        "2024-03-30T02:30+01:00",
        "2024-03-31T03:00+02:00",
        "2024-04-01T02:30+02:00",
    ]


def test_times_that_all_do_not_exist_are_due_once() -> None:
    assert nights("*/20 2,3 * * *", "Europe/Berlin", "2024-03-31T00:00", 4) == [
        "2024-03-31T03:00+02:00",
        "2024-03-31T03:20+02:00",
        "2024-03-31T03:40+02:00",
        "2024-04-01T02:00+02:00",
    ]


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    assert nights("30 2 * * *", "Europe/Berlin", "2024-10-26T12:00", 2) == [
        "2024-10-27T02:30+02:00",
        "2024-10-28T02:30+01:00",
    ]


def test_while_a_time_comes_the_second_time_all_of_the_first_have_been() -> None:
    times = Times("20,40 2 * * *", "Europe/Berlin")
    assert times.up_to(at("2024-10-27T02:10", "Europe/Berlin", fold=1)) == at("2024-10-27T02:40", "Europe/Berlin")
    assert times.after(at("2024-10-27T02:10", "Europe/Berlin", fold=1)) == at("2024-10-28T02:20", "Europe/Berlin")


def test_what_is_due_every_hour_is_due_in_both_hours_of_one_name_and_in_none_that_does_not_exist() -> None:
    assert nights("30 * * * *", "Europe/Berlin", "2024-10-27T01:00", 4) == [
        "2024-10-27T01:30+02:00",
        "2024-10-27T02:30+02:00",
        "2024-10-27T02:30+01:00",
        "2024-10-27T03:30+01:00",
    ]
    assert nights("30 * * * *", "Europe/Berlin", "2024-03-31T01:00", 2) == [
        "2024-03-31T01:30+01:00",
        "2024-03-31T03:30+02:00",
    ]


def test_a_day_that_never_was_is_made_up_for_when_the_next_begins() -> None:
    assert nights("0 10 * * *", "Pacific/Apia", "2011-12-29T00:00", 3) == [
        "2011-12-29T10:00-10:00",
        "2011-12-31T00:00+14:00",
        "2011-12-31T10:00+14:00",
    ]


def test_a_due_time_is_called_as_the_expression_says() -> None:
    named, hourly, often = (
        Times("30 2 * * *", "Europe/Berlin"),
        Times("0 * * * *", "Europe/Berlin"),
        Times("* * * * * 7"),
    )
    assert named.label(at("2024-03-31T03:00", "Europe/Berlin")) == ("2024-03-31", "0230")
    assert named.label(at("2024-10-27T02:30", "Europe/Berlin")) == ("2024-10-27", "0230")
    assert hourly.label(at("2024-10-27T02:00", "Europe/Berlin")) == ("2024-10-27", "0200")
    assert hourly.label(at("2024-10-27T02:00", "Europe/Berlin", fold=1)) == ("2024-10-27", "0200b")
    assert often.label(67) == ("1970-01-01", "000107")


def test_a_date_that_comes_once_in_four_years_is_found_either_way() -> None:
    times = Times("0 0 29 2 *", "Asia/Tokyo")
    assert times.after(at("2024-03-01", "Asia/Tokyo")) == at("2028-02-29", "Asia/Tokyo")
    assert times.up_to(at("2028-02-28", "Asia/Tokyo")) == at("2024-02-29", "Asia/Tokyo")


def test_every_hour_of_a_far_day_is_found_over_the_changes_in_between() -> None:
    times = Times("50 * 27 10 *", "Asia/Beirut")
    last_of_the_year = at("2024-10-27T23:50", "Asia/Beirut")
    assert times.after(last_of_the_year) == at("2025-10-27T00:50", "Asia/Beirut")
    assert times.up_to(at("2025-10-26", "Asia/Beirut")) == last_of_the_year


def test_the_last_hour_of_a_day_that_comes_twice_is_due_twice_before_a_year_is_waited_for() -> None:
    times = Times("50 * 26 10 *", "Asia/Beirut")
    first, second = (at("2024-10-26T23:50", "Asia/Beirut", fold) for fold in (0, 1))
    assert times.after(first) == second == first + 3600
    assert times.after(second) == at("2025-10-26T00:50", "Asia/Beirut")
    assert times.up_to(at("2025-10-25", "Asia/Beirut")) == second
    assert times.up_to(second - 1) == first


def test_seconds_are_a_sixth_field() -> None:
    times = Times("* * * * * */20")
    assert times.latest(0, 60, 10) == ([20, 40, 60], False)
    assert times.after(20.5) == 40


def test_names_are_taken() -> None:
    assert Times("@daily", "UTC").after(1) == 86400
    assert Times("0 0 * * sun").after(0) == 3 * 86400


@pytest.mark.parametrize(
    ("cron", "zone", "told"),
    [
        ("61 * * * *", "UTC", "is no cron expression"),
        ("30 2 * *", "UTC", "has 4 fields"),
        ("30 2 * * * * 2030", "UTC", "has 7 fields"),
        ("", "UTC", "has 0 fields"),
        ("@reboot", "UTC", "is no cron expression"),
        ("0 0 30 2 *", "UTC", "is never due"),
        ("R 2 * * *", "UTC", "drawn by lot"),
        ("h(0-30)/5 2 * * *", "UTC", "drawn by lot"),
        ("30 2 * * *", "Europe/Atlantis", "is no time zone"),
        ("30 2 * * *", "../etc/passwd", "is no time zone"),
        ("30 2 * * *", "Europe", "is no time zone"),
        ("30 2 * * *", "", "is no time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(cron: str, zone: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Times(cron, zone)
