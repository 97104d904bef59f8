"""What a soak of batches found, as a table; and whether it is as it should be."""

from __future__ import annotations

from typing import Any

__all__ = ["sound", "table"]


def sound(told: dict[str, Any], kills: int) -> bool:
    """Whether one run lost nothing, and was killed as often as it should have been."""
    return (
        not told["missing"]
        and not told["doubled"]
        and not told["faults"]
        and not told["parts_changed"]
        and not told["survivors"]
        and told["done"] + told["failed"] == told["rows"]
        and told["done_again"] <= told["most_again"]
        and sum(told["kills"].values()) >= kills
    )


def table(told: dict[str, Any]) -> str:
    """All runs, side by side, as Markdown."""
    runs: dict[str, dict[str, Any]] = told["runs"]
    columns = [_column(one) for one in runs.values()]
    head = ["|  | " + " | ".join(f"`{way}`" for way in runs) + " |", "| --- |" + " ---: |" * len(runs)]
    body = [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in columns[0]]
    return "\n".join([*head, *body])


def _column(one: dict[str, Any]) -> dict[str, str]:
    """One run, by line of the table."""
    return {
        "kills": ", ".join(f"{count} {kind}" for kind, count in sorted(one["kills"].items())),
        "rows": f"{one['rows']:,}",
        "rows missing": f"**{one['missing']}**",
        "rows doubled": f"**{one['doubled']}**",
        "rows answered, rightly": f"{one['done']:,}",
        "rows that failed, and should": f"{one['failed']:,}",
        "wrong rows and other faults": f"**{sum(one['faults'].values())}**",
        "parts that changed once visible": f"**{one['parts_changed']}**",
        "shards": f"{one['shards']:,}",
        "shards done again, and workers killed": f"{one['done_again']}, {one['most_again']}",
        "seconds, restarts included": f"{one['seconds']:.0f}",
    }
