"""`Times`: the instants at which a schedule is due, from a cron expression and a time zone.

croniter (https://github.com/pallets-eco/croniter) reads the expression and counts in wall times, days that clocks are
never changed in; which instant a wall time of a zone is, is decided here. The rule is that of cron(8), under
"Notes" of the manual of Vixie cron as Debian has it (https://manpages.debian.org/bookworm/cron/cron.8.en.html):

- **Hours are named** (`30 2 * * *`, `0 */6 * * *`): each wall time is due once. One that does not exist because clocks
  went forward is due at the moment they did; if several fall there, they are one. One that comes twice because clocks
  went back is due the first time.
- **Every hour** (`*/15 * * * *`: the hour is `*` or all of 0-23): it does not notice that clocks are changed. It is due
  in both of two hours of the same name, and in no hour that does not exist.

Vixie cron does so for changes of less than three hours, and takes a `*` in the minutes for every hour as well; here it
holds for all changes, the day that Samoa left out in 2011 included, and only the hours count. Nothing depends on when
it is asked, so all workers agree.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mesh.errors import SetupError

__all__ = ["Times"]

_FIELDS = (5, 6)
_DAY_S = 86_400
_BY_CHANCE = re.compile(r"[hr](\(.*\))?(/\d+)?", re.IGNORECASE)
"""A field, or a part of one, that croniter draws by lot: every process would draw another time."""
_LATEST = datetime(9000, 1, 1)
"""Later than anything is due, and early enough for date arithmetic."""


class Times:
    """When a schedule is due: whole seconds since the epoch.

    Args:
        cron: Five fields (minute, hour, day of the month, month, day of the week), and seconds as a sixth; or one of
            croniter's names, such as `@daily`. Where both days are given, either will do, as in cron(8).
        timezone: A name of the IANA time zone database.

    Raises:
        ValueError: The expression is none, or is never due; or there is no such zone. The text says which.
        SetupError: croniter is not installed.
    """

    def __init__(self, cron: str, timezone: str = "UTC") -> None:
        self.cron = cron
        self.timezone = timezone
        self._zone = _zone(timezone)
        self._croniter, hours = _read(cron)
        self._every_hour = hours == ["*"]
        if self._wall(datetime(2000, 1, 1), forward=True) is None:
            raise ValueError(f"{cron!r} is never due: no date fits it")

    def local(self, due: int) -> datetime:
        """An instant as the clocks of the zone show it."""
        return datetime.fromtimestamp(due, self._zone)

    def after(self, instant: float) -> int | None:
        """The first due time after an instant; None where there is none within fifty years."""
        start = int(instant // 1)
        if self._every_hour:
            return self._after_elapsed(start)
        found = self._after_named(start)
        return found and found[0]

    def up_to(self, instant: float) -> int | None:
        """The last due time that is not after an instant; None where there is none within fifty years."""
        end = int(instant // 1)
        return self._up_to_elapsed(end) if self._every_hour else self._up_to_named(end)

    def latest(self, after: float, until: float, most: int) -> tuple[list[int], bool]:
        """The last due times with `after < due <= until`, in order.

        Returns:
            At most `most` of them, and whether there are earlier ones.
        """
        found: list[int] = []
        due = self.up_to(until)
        while due is not None and due > after and len(found) < most:
            found.append(due)
            due = self.up_to(due - 1)
        return found[::-1], due is not None and due > after

    def label(self, due: int) -> tuple[str, str]:
        """Date and time by which a due time is called, as `2024-10-27` and `0230`; no two are called alike.

        They are those of the expression: 0230, too, where clocks went from two to three and it is due at three. Seconds
        follow where there are any, and a `b` where the clocks show the time for the second time.
        """
        found = None if self._every_hour else self._after_named(due - 1)
        wall = self.local(due) if found is None else found[1]
        seconds = f"{wall:%S}" if wall.second else ""
        return f"{wall:%Y-%m-%d}", f"{wall:%H%M}{seconds}{'b' if wall.fold else ''}"

    # Hours are named: each wall time is one instant, in the same order.

    def _after_named(self, start: int) -> tuple[int, datetime] | None:
        """The first due time after an instant, and the wall time that it comes from."""
        wall = self._shown(start)
        while (later := self._wall(wall, forward=True)) is not None:
            due = self._instant(later)
            if due > start:
                return due, later
            wall = later  # of a time that came twice: its instant was the first
        return None

    def _up_to_named(self, end: int) -> int | None:
        # While a time comes the second time, wall times past it have had their instants, as far as the first pass went.
        first_pass = self.local(end).replace(fold=0).utcoffset() or timedelta()
        wall = _plain(end, _seconds(first_pass)) + timedelta(seconds=1)
        while (earlier := self._wall(wall, forward=False)) is not None:
            due = self._instant(earlier)
            if due <= end:
                return due
            wall = earlier
        return None

    def _instant(self, wall: datetime) -> int:
        """The first instant at which clocks show a wall time, or are put past it."""
        due = int(wall.replace(tzinfo=self._zone).timestamp())
        if self._shown(due) == wall:
            return due
        # Read with the offset before the change it lies after the change, and before it with the one after.
        return self._change(int(wall.replace(tzinfo=self._zone, fold=1).timestamp()), due)

    # Every hour: wall times of one offset at a time, from one change of clocks to the next.

    def _after_elapsed(self, start: int) -> int | None:
        offset = self._offset(start)
        wall = _plain(start, offset)
        while (later := self._wall(wall, forward=True)) is not None:
            due = _instant_of(later, offset)
            change = self._first_change(start, due)
            if change is None:
                return due
            start, offset = change, self._offset(change)
            wall = _plain(change, offset) - timedelta(seconds=1)  # the moment of the change may be due itself
        return None

    def _up_to_elapsed(self, end: int) -> int | None:
        offset = self._offset(end)
        while (earlier := self._wall(_plain(end, offset) + timedelta(seconds=1), forward=False)) is not None:
            due = _instant_of(earlier, offset)
            change = self._last_change(due, end)
            if change is None:
                return due
            end, offset = change - 1, self._offset(change - 1)
        return None

    # Clocks.

    def _shown(self, instant: int) -> datetime:
        return self.local(instant).replace(tzinfo=None, fold=0)

    def _offset(self, instant: int) -> int:
        return _seconds(self.local(instant).utcoffset() or timedelta())

    def _change(self, before: int, after: int) -> int:
        """The first instant with the offset of `after`, where clocks are changed once in between."""
        offset = self._offset(after)
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == offset:
                after = middle
            else:
                before = middle
        return after

    def _first_change(self, start: int, end: int) -> int | None:
        """The first change of clocks with `start < change <= end`. No zone changes its clocks twice in a day."""
        offset = self._offset(start)
        while start < end:
            step = min(start + _DAY_S, end)
            if self._offset(step) != offset:
                return self._change(start, step)
            start = step
        return None

    def _last_change(self, start: int, end: int) -> int | None:
        """The last such change."""
        offset = self._offset(end)
        while start < end:
            step = max(end - _DAY_S, start)
            if self._offset(step) != offset:
                return self._change(step, end)
            end = step
        return None

    def _wall(self, wall: datetime, *, forward: bool) -> datetime | None:
        """The next wall time that fits the expression, or the one before."""
        found = self._croniter(wall, forward)
        return found if found is not None and found < _LATEST else None


def _plain(instant: int, offset: int) -> datetime:
    return datetime.fromtimestamp(instant + offset, UTC).replace(tzinfo=None)


def _instant_of(wall: datetime, offset: int) -> int:
    return int(wall.replace(tzinfo=UTC).timestamp()) - offset


def _seconds(offset: timedelta) -> int:
    return offset.days * _DAY_S + offset.seconds


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # An OSError where it is the name of a folder of the database.
        raise ValueError(f"{name!r} is no time zone: write a name such as Europe/Berlin or UTC") from None


def _read(cron: str) -> tuple[Any, list[Any]]:
    """A function from a wall time to the one that fits after or before it, and the hours, expanded."""
    try:
        from croniter import CroniterBadDateError, CroniterError, croniter
    except ImportError:
        raise SetupError("schedules need croniter: pip install 'inference-mesh[batch]'") from None
    fields = cron.split()
    if not cron.startswith("@") and len(fields) not in _FIELDS:
        raise ValueError(f"{cron!r} has {len(fields)} fields: write five, as in '30 2 * * *', or six with seconds last")
    if any(_BY_CHANCE.fullmatch(part) for one in fields for part in one.split(",")):
        raise ValueError(f"{cron!r} is drawn by lot: every worker would draw another time")
    try:
        made: Any = croniter(cron, datetime(2000, 1, 1), ret_type=datetime)
    except CroniterError as error:
        raise ValueError(f"{cron!r} is no cron expression: {error}") from None

    def fitting(wall: datetime, forward: bool) -> datetime | None:
        try:
            return (made.get_next if forward else made.get_prev)(datetime, start_time=wall)
        except CroniterBadDateError:
            return None

    return fitting, made.expanded[1]
