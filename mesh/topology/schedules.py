"""`schedules:`: each is due at some time, and the batch that it begins is one that the graph can run.

Needs croniter (extra `batch`) and the time zone database, and loads them where there is a schedule only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

from mesh.errors import Problem
from mesh.topology.graph_jobs import GraphBatch, GraphSchedule
from mesh.topology.jobs import placed
from mesh.topology.source import Path, did_you_mean, shown
from mesh.topology.spec import Topology
from mesh.topology.spec_jobs import ScheduledBatchFile, ScheduleFile

__all__ = ["PLACEHOLDERS", "check_schedules"]

PLACEHOLDERS = ("date", "time", "schedule")
"""What the path of a batch may have in braces: when it is due, in the schedule's time zone, and the schedule's name."""

_FIELDS = ("minute", "hour", "day of the month", "month", "weekday", "second")
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_WEEKDAYS = "mon tue wed thu fri sat sun"
_WORDS = (set(), set(), {"l"}, set(_MONTHS.split()), {"l", *_WEEKDAYS.split()}, set[str]())
"""Letters that each field may have. croniter has more, such as R for something random: each process's own."""
_NAMED = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_CRON_HINT = "five fields, minute hour day month weekday, as in '30 2 * * *'"
_ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)
"""From where it is asked whether a schedule is ever due; any instant would do."""
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_schedules(topology: Topology, folder: FilePath, problems: list[Problem]) -> list[GraphSchedule]:
    """Look at the schedules of a file; what is wrong is added to `problems`.

    Args:
        topology: What the file says.
        folder: Where it lies; what it names is relative to that.
        problems: Where mistakes are added.

    Returns:
        The schedules, as far as they could be looked at.
    """
    source = topology.source
    if "schedules" not in source.value:
        return []
    if "jobs" not in source.value and not topology.doubts("jobs"):
        text = "schedules need jobs, whose workers begin their batches"
        problems.append(source.problem(("schedules",), text, "write jobs: {}", at_key=True))
    try:
        import croniter as library
    except ImportError:
        text = "schedules need the package croniter"
        hint = "pip install 'inference-mesh[batch]'"
        problems.append(source.problem(("schedules",), text, hint, at_key=True))
        return []
    check = _ScheduleCheck(topology, library, problems)
    for name, part in topology.schedules.items():
        check.schedule(name, part)
    return [_made(topology, name, part, folder) for name, part in topology.schedules.items()]


class _ScheduleCheck:
    def __init__(self, topology: Topology, library: Any, problems: list[Problem]) -> None:
        self._topology = topology
        self._library = library
        self._problems = problems

    def schedule(self, name: str, part: ScheduleFile) -> None:
        path: Path = ("schedules", name)
        often = None if self._topology.doubts(*path, "cron") else self._cron((*path, "cron"), part.cron)
        self._timezone((*path, "timezone"), part.timezone)
        if not self._topology.doubts(*path, "batch"):
            self._batch((*path, "batch"), part.batch, often)

    def _wrong(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        self._problems.append(self._topology.source.problem(path, text, hint, at_key=at_key))

    # When.

    def _cron(self, path: Path, text: str) -> bool | None:
        """Look at an expression; gives whether it is due more than once in some day, None where it is wrong."""
        fields = text.split()
        if text.startswith("@"):
            if text not in _NAMED:
                self._wrong(path, f"{shown(text)} is no time", did_you_mean(text, _NAMED))
                return None
        elif len(fields) not in (5, 6):
            self._wrong(path, f"{shown(text)} has {len(fields)} fields", _CRON_HINT)
            return None
        elif wrong := [index for index, field in enumerate(fields) if not self._field(index, field)]:
            for index in wrong:
                self._wrong(path, f"{shown(fields[index])} is no {_FIELDS[index]}, in {shown(text)}", _CRON_HINT)
            return None
        try:
            self._library.croniter(text, _ANCHOR).get_next()
        except ValueError:
            self._wrong(path, f"{shown(text)} is never due: there is no such day")
            return None
        seconds, (minutes, hours) = [], self._expanded(text)[:2]
        if len(fields) == 6:
            seconds = self._expanded(text)[5]
        return any(len(one) > 1 or one == ["*"] for one in (minutes, hours, seconds))

    def _field(self, index: int, field: str) -> bool:
        if not {word.lower() for word in re.findall(r"[A-Za-z]+", field)} <= _WORDS[index]:
            return False
        try:
            self._expanded(" ".join(field if place == index else "*" for place in range(max(5, index + 1))))
        except ValueError:
            return False
        return True

    def _expanded(self, text: str) -> list[list[Any]]:
        expanded: list[list[Any]] = self._library.croniter.expand(text)[0]
        return expanded

    def _timezone(self, path: Path, name: str) -> None:
        from zoneinfo import ZoneInfo, available_timezones

        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            known = available_timezones()
            hint = did_you_mean(name, sorted(known)) if known else "pip install tzdata"
            self._wrong(path, f"no time zone is called {shown(name)}", hint)

    # What.

    def _batch(self, path: Path, part: ScheduledBatchFile, often: bool | None) -> None:
        topology = self._topology
        for key, known in (("columns", "inputs"), ("outputs", "outputs")):
            names: Sequence[str] = list(part.columns) if key == "columns" else part.outputs or ()
            there = topology.written(known)
            for index, name in enumerate(names):
                step = name if key == "columns" else index
                if name not in there and not topology.doubts(known):
                    text = f"the graph has no {known[:-1]} {shown(name)}"
                    self._wrong((*path, key, step), text, did_you_mean(name, there), at_key=key == "columns")
                elif name in names[:index]:
                    self._wrong((*path, key, step), f"{shown(name)} comes twice")
        written = part.outputs or topology.written("outputs")
        for index, column in enumerate(part.keep):
            if column in part.keep[:index]:
                self._wrong((*path, "keep", index), f"{shown(column)} comes twice")
            elif column in written:
                self._wrong((*path, "keep", index), f"an output of the graph is called {shown(column)}, too")
        self._template((*path, "input"), part.input)
        found = self._template((*path, "output"), part.output)
        if found is None or often is None:
            return
        if "date" not in found:
            text = f"every batch would write to {shown(part.output)}"
            self._wrong((*path, "output"), text, "write {date} somewhere in it")
        elif often and "time" not in found:
            text = f"the batches of one day would all write to {shown(part.output)}"
            self._wrong((*path, "output"), text, "write {time} somewhere in it, too")

    def _template(self, path: Path, text: str) -> set[str] | None:
        """The placeholders in a path; None where something is wrong with it."""
        found: set[str] = set()
        right = True
        for one in _BRACES.finditer(text):
            name = one[1]
            if one[0] in ("{{", "}}"):
                continue
            if name in PLACEHOLDERS:
                found.add(name)
                continue
            wrong = f"a {one[0]!r} by itself" if name is None else f"{one[0]} stands for nothing"
            hint = f"write {one[0] * 2} for the character" if name is None else f"there is: {_braced()}"
            self._problems.append(self._topology.source.problem_within(path, one.start(), wrong, hint, ()))
            right = False
        return found if right else None


def _braced() -> str:
    return ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


def _made(topology: Topology, name: str, part: ScheduleFile, folder: FilePath) -> GraphSchedule:
    batch = part.batch
    stop_after = 0 if batch.on_error == "stop" else None
    if not isinstance(batch.on_error, str):
        stop_after = batch.on_error.stop_after
    return GraphSchedule(
        name=name,
        cron=part.cron,
        timezone=part.timezone,
        window_s=part.window,
        overlap=part.overlap,
        catch_up=part.catch_up,
        batch=GraphBatch(
            input=_template(folder, batch.input),
            input_format=batch.input_format or "",
            columns=dict(batch.columns),
            output=_template(folder, batch.output),
            keep=tuple(batch.keep),
            outputs=tuple(batch.outputs or ()),
            shard_rows=batch.shard_rows or 0,
            request_rows=batch.request_rows or 0,
            stop_after=stop_after,
            parameters=dict(batch.parameters),
        ),
        line=topology.source.problem(("schedules", name), "", at_key=True).line,
    )


def _template(folder: FilePath, text: str) -> str:
    """The template of an absolute path: braces in the folder's own name stand for themselves."""
    if FilePath(text).is_absolute():
        return text
    return str(FilePath(placed(folder, ".").replace("{", "{{").replace("}", "}}")) / text)
