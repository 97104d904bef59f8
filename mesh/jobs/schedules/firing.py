"""What a schedule does at a moment: pure, from what is known of it and the time to what is known then.

A schedule's `Record` is one document, written by compare-and-set. `look` gives the next one; what is to be done can be
read off it: begin the batch of `current` where that is BEGINNING, end it where `current.ending` is set. Whoever writes
a record has claimed its `current`: so one worker begins a batch, however many look, and if it dies the next that looks
begins it again, under the same key.

What becomes of a due time, in this order:

1. It is **on time** if it is seen within `GRACE_S` of being due; else it was **missed**: no worker ran, or the clock
   was put forward. Of those missed `catch_up` takes none, the latest, or all. The latest is taken only if nothing is on
   time, since what begins then makes up for it as well. Of more than `MOST_WAITING` the latest are looked at.
2. If its window has ended it is skipped.
3. If it is on time and an earlier firing runs or waits, `overlap` says what it does: `skip` itself, `wait`, or
   `cancel` the batch that runs and skip those that wait. What is made up for always waits its turn, oldest first:
   nobody was there to decide when it was due, and `all` shall lose none of them.
4. It waits until no batch of the schedule runs, and begins. Of more than `MOST_WAITING` that wait the oldest are
   skipped.

A batch that runs when its window ends is cancelled. What it has written stays and can be resumed.

A due time is looked at once: `handled` is the last one that was, and does not go back with the clock, which would cause
a second firing: the schedule is quiet until the clock has come to where it was. Only one whose times were changed
begins anew. Each due time that was looked at ends in `runs`, or in `skips` with a reason (the latest `HISTORY` of each
are kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from mesh.jobs.schedules.times import Times

__all__ = [
    "BEGIN_WITHIN_S",
    "GRACE_S",
    "HISTORY",
    "MOST_WAITING",
    "Firing",
    "FiringState",
    "Phase",
    "Record",
    "Rules",
    "Seen",
    "Skip",
    "begun",
    "failed",
    "look",
    "next_look",
]

GRACE_S = 60
"""How late a due time may be seen and still be on time, in seconds: a busy machine, or a worker that is restarted."""
MOST_WAITING = 100
"""Firings of a schedule that may wait, and missed ones that are made up for."""
HISTORY = 100
"""Runs, and skipped due times, that are remembered of a schedule."""
BEGIN_WITHIN_S = 86_400
"""How long it is tried to begin a batch, while the store is full or out of reach."""
POLL_S = 10.0
"""Between two looks at a batch that runs or should begin, in seconds."""
LOOK_S = 60.0
"""The longest time between two looks: a clock that was put forward is noticed after it."""

ENDED_BY_WINDOW = "its window ended"
ENDED_BY_NEXT = "the next one was due"


class Phase(Enum):
    """How far a batch has come, as far as its schedule wants to know."""

    GOING = "going"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch, looked at."""

    phase: Phase
    error: str = ""
    """Why it failed."""


class FiringState(Enum):
    """Where a firing stands."""

    BEGINNING = "beginning"
    """A worker has claimed it; its batch may have begun or not."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    FORGOTTEN = "forgotten"
    """Its batch ended, and the store had dropped it before anybody looked."""


_ENDS = {Phase.DONE: FiringState.DONE, Phase.FAILED: FiringState.FAILED, Phase.CANCELLED: FiringState.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A due time whose batch was to begin. Times in seconds since the epoch."""

    due: int
    state: FiringState
    claim_time: float
    batch: str = ""
    """Its id; empty while it is BEGINNING."""
    spec: bytes = b""
    """What the batch is to do, kept while it is BEGINNING: one that is begun again has to be the same."""
    end_time: float = 0.0
    """When it was seen to be over; 0 before."""
    ending: str = ""
    """Why it is to be cancelled, where it is."""
    error: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A due time whose batch never began."""

    due: int
    reason: str
    and_before: bool = False
    """Stands for all before it, too, that were not looked at one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a schedule."""

    cron: str
    timezone: str
    handled: int
    """Due times up to here were looked at."""
    current: Firing | None = None
    """BEGINNING or RUNNING."""
    waiting: tuple[int, ...] = ()
    """Due times that begin when `current` is over, oldest first."""
    runs: tuple[Firing, ...] = ()
    """What is over, the latest first."""
    skips: tuple[Skip, ...] = ()
    """The latest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a topology says of a schedule."""

    times: Times
    window_s: float | None = None
    overlap: str = "skip"
    """`skip`, `wait` or `cancel`."""
    catch_up: str = "latest"
    """`none`, `latest` or `all`."""

    def window_end(self, due: int) -> float:
        """When the window of a due time ends, in seconds since the epoch."""
        return float("inf") if self.window_s is None else due + self.window_s


def look(rules: Rules, record: Record | None, now: float, seen: Seen | None = None) -> Record:
    """What is to be known after a look.

    Args:
        rules: Of the schedule.
        record: What is known of it; None the first time, when nothing has been missed yet.
        now: Seconds since the epoch.
        seen: The batch of `current`, where that is RUNNING; None where the store does not know it any more.

    Returns:
        The record to be written; equal to the one given if there is nothing to be done.
    """
    times = rules.times
    if record is None:
        return Record(cron=times.cron, timezone=times.timezone, handled=int(now // 1))
    if (record.cron, record.timezone) != (times.cron, times.timezone):
        record = _skipped(record, record.waiting, "the schedule was changed")
        record = replace(record, cron=times.cron, timezone=times.timezone, handled=int(now // 1), waiting=())
    record = _settled(record, now, seen)
    record = _noticed(rules, record, now)
    record = _closed(rules, record, now)
    return _claimed(record, now)


def begun(record: Record, batch: str) -> Record:
    """After the batch of `current` has begun."""
    assert record.current is not None
    return replace(record, current=replace(record.current, state=FiringState.RUNNING, batch=batch, spec=b""))


def failed(record: Record, error: str, now: float) -> Record:
    """After the batch of `current` was refused."""
    assert record.current is not None
    return _over(record, replace(record.current, state=FiringState.FAILED, error=error), now)


def next_look(rules: Rules, record: Record, now: float) -> float:
    """Seconds until the next look; from 0 to `LOOK_S`."""
    moments = [now + LOOK_S]
    if record.current is None and record.waiting:
        return 0.0
    if record.current is not None:
        moments.append(now + POLL_S)
        if not record.current.ending:
            moments.append(rules.window_end(record.current.due))
    moments += [rules.window_end(due) for due in record.waiting[:1]]
    due = rules.times.after(max(record.handled, now))
    if due is not None:
        moments.append(due)
    return max(0.0, min(moments) - now)


# ===== The steps of a look =====


def _settled(record: Record, now: float, seen: Seen | None) -> Record:
    """The batch that ran is over, or goes on."""
    current = record.current
    if current is None:
        return record
    if current.state is FiringState.BEGINNING:
        late = now >= current.claim_time + BEGIN_WITHIN_S
        return failed(record, "its batch could not be begun within a day", now) if late else record
    if seen is None:
        return _over(record, replace(current, state=FiringState.FORGOTTEN), now)
    if seen.phase is Phase.GOING:
        return record
    return _over(record, replace(current, state=_ENDS[seen.phase], error=seen.error), now)


def _noticed(rules: Rules, record: Record, now: float) -> Record:
    """Due times since the last look wait or are skipped."""
    dues, more = rules.times.latest(record.handled, now, MOST_WAITING)
    if not dues:
        return record
    if more and (before := rules.times.up_to(dues[0] - 1)) is not None:
        record = replace(record, skips=(Skip(before, "missed", and_before=True), *record.skips)[:HISTORY])
    record = replace(record, handled=dues[-1])
    late = sum(due < now - GRACE_S for due in dues)
    missed, on_time = dues[:late], dues[late:]
    made_up = _made_up(rules, missed, on_time)
    record = _skipped(record, missed[: len(missed) - len(made_up)], "missed")
    record = replace(record, waiting=(*record.waiting, *made_up))
    for due in on_time:
        record = _due(rules, record, due)
    return record


def _made_up(rules: Rules, missed: list[int], on_time: list[int]) -> list[int]:
    """The last so many of those missed."""
    if rules.catch_up == "all":
        return missed
    return missed[-1:] if rules.catch_up == "latest" and not on_time else []


def _due(rules: Rules, record: Record, due: int) -> Record:
    """One that is on time."""
    if record.current is None and not record.waiting:
        return replace(record, waiting=(due,))
    if rules.overlap == "skip":
        return _skipped(record, [due], "the one before was not over")
    if rules.overlap == "wait":
        return replace(record, waiting=(*record.waiting, due))
    record = _skipped(record, record.waiting, ENDED_BY_NEXT)
    current = record.current and _ended(record.current, ENDED_BY_NEXT)
    return replace(record, current=current, waiting=(due,))


def _closed(rules: Rules, record: Record, now: float) -> Record:
    """Windows that have ended; and no more wait than may."""
    late = [due for due in record.waiting if now >= rules.window_end(due)]
    record = _skipped(record, late, ENDED_BY_WINDOW)
    waiting = record.waiting[len(late) :]  # windows end in the order in which they begin
    many = waiting[: max(0, len(waiting) - MOST_WAITING)]
    record = _skipped(record, many, "too many waited")
    current = record.current
    if current is not None and now >= rules.window_end(current.due):
        current = _ended(current, ENDED_BY_WINDOW)
    return replace(record, current=current, waiting=waiting[len(many) :])


def _claimed(record: Record, now: float) -> Record:
    """The next one begins, where none runs."""
    if record.current is not None or not record.waiting:
        return record
    due, *others = record.waiting
    current = Firing(due=due, state=FiringState.BEGINNING, claim_time=now)
    return replace(record, current=current, waiting=tuple(others))


def _ended(current: Firing, reason: str) -> Firing:
    return current if current.ending else replace(current, ending=reason)


def _over(record: Record, firing: Firing, now: float) -> Record:
    runs = (replace(firing, end_time=now, spec=b""), *record.runs)[:HISTORY]
    return replace(record, current=None, runs=runs)


def _skipped(record: Record, dues: Sequence[int], reason: str) -> Record:
    skips = (*(Skip(due, reason) for due in reversed(dues)), *record.skips)[:HISTORY]
    return replace(record, skips=skips)
