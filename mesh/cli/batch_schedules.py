"""`mesh batch schedules ADDRESS|FILE`: when batches begin by themselves, and what became of the last."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mesh.cli.connect import asking
from mesh.cli.terminal import printable, run_until_interrupted, show
from mesh.errors import NotFound
from mesh.jobs.schedules.firing import Firing
from mesh.jobs.schedules.schedule import ScheduleTold, schedules_of
from mesh.jobs.schedules.scheduler import DEFAULT_HISTORY, MAX_HISTORY, tell_schedules
from mesh.jobs.schedules.service import ask_schedules
from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.transports import DEFAULT_ENGINE, ENGINES
from mesh.units import format_duration

__all__ = ["add", "json_of_schedule", "tables"]


def add(verbs: Any) -> None:
    """Add the verb to those of `mesh batch`."""
    made = verbs.add_parser("schedules", help="when batches are due, and what became of the last", description=__doc__)
    made.add_argument(
        "where", metavar="ADDRESS|FILE", help="the gateway of a running mesh; or a topology, for the times"
    )
    made.add_argument(
        "--history", type=_history, default=DEFAULT_HISTORY, metavar="N", help="runs of each schedule (default: 10)"
    )
    made.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC on this side")
    made.add_argument("--json", action="store_true", help="print JSON, one schedule a line")
    made.set_defaults(run=run)


def _history(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_HISTORY:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_HISTORY}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show."""
    told = run_until_interrupted(_told(arguments))
    if arguments.json:
        for one in told:
            print(json.dumps(json_of_schedule(one)))
    elif told:
        show(*tables(told))
    else:
        raise NotFound(f"{arguments.where} has no schedules")
    return 0


async def _told(arguments: argparse.Namespace) -> list[ScheduleTold]:
    where: str = arguments.where
    if where.startswith(("grpc://", "unix:/")):
        with asking(where):
            return await ask_schedules(where, history=arguments.history, engine=arguments.engine)
    graph = compile_file(Path(where), LAYERS).graph
    return await tell_schedules(schedules_of(graph), None, time.time())


# ===== For people =====


@dataclass(frozen=True, slots=True)
class _Line:
    """A run, or due times that were left out for the same reason."""

    due: float
    state: str
    batch: str = ""
    took_s: float | None = None
    why: str = ""
    count: int = 1


def tables(told: Sequence[ScheduleTold]) -> Iterator[Any]:
    """The schedules, and below them their runs, the latest first; times are those of each schedule's zone."""
    from rich.table import Table
    from rich.text import Text

    plain: Any = {"box": None, "pad_edge": False, "header_style": "bold"}
    table = Table("schedule", "cron", "next", "now", **plain)
    for one in told:
        zone = _zone(one.timezone)
        ahead = ", ".join(_shown(due, zone) for due in one.next_times[:1]) or "never"
        table.add_row(Text(printable(one.name)), Text(printable(one.cron)), ahead, Text(printable(_now(one, zone))))
    yield table
    past = [(one, line) for one in told for line in _lines(one)]
    if not past:
        return
    yield ""
    table = Table("schedule", "due", "ended in", "batch", "after", "because", **plain)
    for one, line in past:
        due = _shown(line.due, _zone(one.timezone)) + (f" and {line.count - 1} before" if line.count > 1 else "")
        took = "" if line.took_s is None else format_duration(round(line.took_s, 1))
        cells = (one.name, due, line.state, line.batch, took, line.why)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    yield table


def _now(one: ScheduleTold, zone: tzinfo) -> str:
    if one.current is None:
        return "-"
    waiting = f"; {len(one.waiting)} wait" if one.waiting else ""
    ending = f", ending: {one.current.ending}" if one.current.ending else ""
    batch = f"batch {one.current.batch}" if one.current.batch else "beginning"
    return f"{batch}, due {_shown(one.current.due, zone)}{ending}{waiting}"


def _lines(one: ScheduleTold) -> list[_Line]:
    runs = [
        _Line(run.due, run.state.value, run.batch, run.end_time - run.claim_time, run.error or run.ending)
        for run in one.runs
    ]
    skips = [_Line(skip.due, "skipped", why=skip.reason + ", and before" * skip.and_before) for skip in one.skips]
    joined: list[_Line] = []
    for line in sorted((*runs, *skips), key=lambda line: -line.due):
        last = joined[-1] if joined else None
        if last is not None and (last.state, last.why) == (line.state, line.why) and line.state == "skipped":
            joined[-1] = _Line(last.due, last.state, why=last.why, count=last.count + 1)
        else:
            joined.append(line)
    return joined


def _zone(name: str) -> tzinfo:
    """The zone of a mesh's schedule; UTC where this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _shown(instant: float, zone: tzinfo) -> str:
    local = datetime.fromtimestamp(instant, zone)
    return local.strftime("%Y-%m-%d %H:%M:%S %Z" if local.second else "%Y-%m-%d %H:%M %Z")


# ===== For programs =====


def json_of_schedule(one: ScheduleTold) -> dict[str, Any]:
    """All that is told of a schedule. Instants are RFC 3339 in the schedule's zone."""
    zone = _zone(one.timezone)

    def at(instant: float) -> str:
        return datetime.fromtimestamp(instant, zone).isoformat()

    def run_of(firing: Firing) -> dict[str, Any]:
        optional = {"batch": firing.batch, "ending": firing.ending, "error": firing.error}
        return {
            "due": at(firing.due),
            "state": firing.state.value,
            "claimed": at(firing.claim_time),
            **({"ended": at(firing.end_time)} if firing.end_time else {}),
            **{key: value for key, value in optional.items() if value},
        }

    return {
        "name": one.name,
        "cron": one.cron,
        "timezone": one.timezone,
        "window_s": one.window_s,
        "overlap": one.overlap,
        "catch_up": one.catch_up,
        "input": one.spec.input,
        "output": one.spec.output,
        "next": [at(due) for due in one.next_times],
        "current": None if one.current is None else run_of(one.current),
        "waiting": [at(due) for due in one.waiting],
        "runs": [run_of(firing) for firing in one.runs],
        "skips": [
            {"due": at(skip.due), "reason": skip.reason, **({"and_before": True} if skip.and_before else {})}
            for skip in one.skips
        ],
    }
