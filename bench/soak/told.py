"""What a soak found: as JSON, and as a table."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bench.soak.ledger import Ledger

__all__ = ["found", "stalls", "table"]

_AFTER_S = 5.0
"""How long after a kill something that stands still is put down to it."""


def found(ledger: Ledger, kills: Sequence[tuple[str, float]], *, began: float, unanswered: int) -> dict[str, Any]:
    """Everything that is told.

    Args:
        ledger: At the end.
        kills: Kind and monotonic time of each.
        began: When the load did.
        unanswered: Calls that were repeated.
    """
    kinds = sorted({kind for kind, _ in kills})
    by_kind = {kind: [at for one, at in kills if one == kind] for kind in kinds}
    seconds = ledger.over_at[-1] - began if ledger.over_at else 0.0
    return {
        "jobs": ledger.jobs,
        "acknowledged": ledger.acknowledged,
        "lost": ledger.acknowledged - ledger.over,
        "faults": dict(ledger.faults),
        "told": ledger.told,
        "ids_with_two_ends": len(ledger.changed),
        "looks": ledger.looks,
        "kills": {kind: len(times) for kind, times in by_kind.items()},
        "attempts": {str(count): ledger.attempts[count] for count in sorted(ledger.attempts)},
        "unanswered": unanswered,
        "seconds": round(seconds, 1),
        "jobs_per_s": round(ledger.over / max(seconds, 1e-9), 1),
        "stood_still_s": {
            kind: {
                "submissions": _spread(stalls(ledger.acknowledged_at, times)),
                "ends": _spread(stalls(ledger.over_at, times)),
            }
            for kind, times in by_kind.items()
        },
    }


def stalls(events: Sequence[float], kills: Sequence[float]) -> list[float]:
    """For each kill the longest time without an event that began before the kill was `_AFTER_S` ago.

    Args:
        events: Times, in their order.
        kills: Times.
    """
    longest: list[float] = []
    for at in kills:
        first, last = bisect_left(events, at), bisect_right(events, at + _AFTER_S)
        times = [at, *events[first : last + 1]]
        longest.append(max((b - a for a, b in pairwise(times)), default=0.0))
    return longest


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 2), "longest": round(max(seconds), 2)} if seconds else {}


def table(told: dict[str, Any]) -> str:
    """The same for people, as Markdown."""
    attempts = ", ".join(f"{count}: {jobs:,}" for count, jobs in told["attempts"].items())
    rows = [
        ("jobs acknowledged", f"{told['acknowledged']:,}"),
        ("lost", f"**{told['lost']}**"),
        ("wrong answers, failures and other faults", f"**{sum(told['faults'].values())}**"),
        ("ids with two different visible ends", f"**{told['ids_with_two_ends']}** of {told['looks']:,} looks"),
        ("jobs by attempts", attempts),
        ("calls that were repeated", f"{told['unanswered']:,}"),
        ("jobs/s over all, restarts included", f"{told['jobs_per_s']:,.0f}"),
    ]
    kinds = [
        (
            f"{kind}, {count} times",
            *(f"{still['median']:.1f} ({still['longest']:.1f})" for still in told["stood_still_s"][kind].values()),
        )
        for kind, count in told["kills"].items()
    ]
    lines = [("what", "count"), ("---", "---:"), *rows]
    killed = [("killed", "no submission acknowledged, s", "no job ended, s"), ("---", "---:", "---:"), *kinds]
    joined = ["\n".join(f"| {' | '.join(line)} |" for line in part) for part in (lines, killed)]
    return "\n\n".join(joined) + "\n\nSeconds are the median, and the longest, of what followed a kill."
