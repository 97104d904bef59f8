"""What a soak found: as JSON, and as a table."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import Counter
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
    still = {
        "submissions": stalls(ledger.acknowledged_at, [at for _, at in kills]),
        "ends": stalls(ledger.over_at, [at for _, at in kills]),
    }
    seconds = ledger.over_at[-1] - began if ledger.over_at else 0.0
    return {
        "jobs": ledger.jobs,
        "acknowledged": ledger.acknowledged,
        "lost": ledger.acknowledged - ledger.over,
        "faults": dict(ledger.faults),
        "told": ledger.told,
        "ids_with_two_ends": len(ledger.changed),
        "looks": ledger.looks,
        "kills": dict(sorted(Counter(kind for kind, _ in kills).items())),
        "attempts": {str(count): ledger.attempts[count] for count in sorted(ledger.attempts)},
        "unanswered": unanswered,
        "seconds": round(seconds, 1),
        "jobs_per_s": round(ledger.over / max(seconds, 1e-9), 1),
        "stood_still_s": {
            kind: {
                what: _spread([one for one, (killed, _) in zip(times, kills, strict=True) if killed == kind])
                for what, times in still.items()
            }
            for kind in kinds
        },
    }


def stalls(events: Sequence[float], kills: Sequence[float]) -> list[float]:
    """For each kill, how long nothing happened because of it: the longest wait for an event that it came into, or that
    began up to `_AFTER_S` later and before the next kill. A kill that comes while things stand still already is put
    down to the one before.

    Args:
        events: Times, in their order.
        kills: Times, in their order.
    """
    longest = [0.0] * len(kills)
    for before, after in pairwise(events):
        index = bisect_right(kills, before)
        if index < len(kills) and kills[index] <= after:
            began = kills[index]
        elif index and before - kills[index - 1] <= _AFTER_S:
            index, began = index - 1, before
        else:
            continue
        longest[index] = max(longest[index], after - began)
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
        (
            "meshes that gave up on a process killed six times in a row, and were started again",
            str(told.get("left", 0)),
        ),
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
