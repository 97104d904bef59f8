"""`bench/results/*.json` to the tables in `docs/performance.md`, between its markers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.soak.told import table as soak_table
from bench.soak_batches.told import table as soak_batches_table
from bench.wire.page import wire_tables

__all__ = ["write_page"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def write_page(results: Path) -> None:
    """Put each topic's table where `<!-- bench: topic -->` stands."""
    text = PAGE.read_text()
    for topic, table in TABLES.items():
        path = results / f"{topic}.json"
        if path.exists():
            told = json.loads(path.read_text())
            block = f"<!-- bench: {topic} -->\n{table(told)}\n\n{_measured_on(told['machine'])}\n<!-- end -->"
            pattern = rf"<!-- bench: {topic} -->.*?<!-- end -->"
            text = re.sub(pattern, lambda _: block, text, flags=re.DOTALL)  # noqa: B023 - used at once
    PAGE.write_text(text)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measured_on(told: dict[str, Any]) -> str:
    return "Measured on " + ", ".join(f"{name} {value}" for name, value in told.items()) + "."


def _spread(case: dict[str, Any]) -> str:
    return f"{case['ratio']:.2f} ({case['ratio_min']:.2f} to {case['ratio_max']:.2f})"


def _fused_chain(told: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{case['ours_us']:.0f}",
            f"{case['other_us']:.0f}",
            f"{case['overhead_us']:.0f}",
            f"**{case['overhead_us_per_node']:.1f}**",
        )
        for name, case in told["cases"].items()
    ]
    return _table(("request", "mesh µs", "bare loop µs", "overhead µs", "overhead µs a node"), rows)


def _batching(told: dict[str, Any]) -> str:
    rows = [
        (
            f"{told['callers']} callers of one row",
            f"{1e6 / told['ours_us']:,.0f}",
            f"{1e6 / told['other_us']:,.0f}",
            f"**{told['share_of_bare']:.0%}**",
        )
    ]
    sizes = ", ".join(f"{size}: {value:g}" for size, value in told["bare_us_per_row_by_batch"].items())
    note = f"Bare µs a row by batch size: {sizes}; the best is {told['best_batch']}."
    return _table(("load", "mesh rows/s", f"bare rows/s at batch {told['best_batch']}", "share"), rows) + f"\n\n{note}"


def _remote_hop(told: dict[str, Any]) -> str:
    rows = [
        (name, f"{case['ours_us']:.0f}", f"{case['other_us']:.0f}", f"**{_spread(case)}**")
        for name, case in told["cases"].items()
    ]
    return _table(("message", "mesh µs a call", "bare grpc.aio µs a call", "ratio (lowest to highest round)"), rows)


def _compiling(told: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{case['bytes'] / 1000:.0f}",
            f"**{case['ours_us'] / 1000:.1f}**",
            f"{case['other_us'] / 1000:.1f}",
            _spread(case),
        )
        for name, case in told["cases"].items()
    ]
    head = ("file", "kB", "compiled ms", "YAML parse alone ms", "ratio (lowest to highest round)")
    return _table(head, rows)


def _flow(told: dict[str, Any]) -> str:
    costs = [
        (name, f"{case['ours_us']:.0f}", f"{case['other_us']:.0f}", f"**{case['overhead_us']:.0f}**")
        for name, case in told["fused"].items()
    ]
    rows: list[tuple[str, ...]] = []
    for kind, case in told["joins"].items():
        every = case["all"]
        slowest = f"{every['other_us'] / 1000:.1f} (the slowest branch by itself)"
        rows.append((f"all, {kind}", slowest, f"{every['ours_us'] / 1000:.1f}", "", f"**{_spread(every)}**"))
        for policy in ("first", "deadline"):
            one = case[policy]
            late = f"**{one['p99_ms'] - one['due_ms']:.1f} ms late**"
            due = f"{one['due_ms']} ({'the deadline' if policy == 'deadline' else 'the fastest branch'})"
            rows.append((f"{policy}, {kind}", due, f"{one['p50_ms']:.1f}", f"{one['p99_ms']:.1f}", late))
    branches = ", ".join(map(str, told["branches_ms"]))
    note = f"Branches of {branches} ms. Fused: {told['rows']} rows; overhead is the difference of the two medians."
    fused = _table(("in one process", "with it µs", "without µs", "overhead µs"), costs)
    joins = _table(("join over processes", "due ms", "median ms", "p99 ms", "ratio, or p99 past what is due"), rows)
    return f"{fused}\n\n{joins}\n\n{note}"


def _wire(told: dict[str, Any]) -> str:
    return wire_tables(told, _table)


def _caches(told: dict[str, Any]) -> str:
    hits = [
        (f"batch of {rows}", f"**{case['ours_us']:.1f}**", f"{case['other_us']:.1f}", _spread(case))
        for rows, case in told["hit"].items()
    ]
    hops: list[tuple[str, ...]] = []
    for case, both in told["gateway"]["cases"].items():
        for what, name in (("server_cpu_us", "server's processor"), ("wall_us", "client's wait")):
            one = both[what]
            times = (f"**{one['cached']:.0f}**", *(f"{one[kind]:.0f}" for kind in ("uncached", "typed", "echo")))
            hops.append((f"{case}, {name}", *times, f"{one['cached / typed']:.1f}", f"{one['cached / echo']:.1f}"))
    valkey = told["valkey"]
    keys = [
        ("one multi-get", f"**{valkey['ours_us'] / 1000:.2f}**", ""),
        ("64 gets", f"{valkey['other_us'] / 1000:.2f}", f"{1 / valkey['ratio']:.0f}"),
    ]
    digests = "; ".join(f"{name} {value:g}" for name, value in told["digest_us_per_row"].items())
    memory = told["memory"]
    shares = (
        f"{memory['inserts']:,} values of 1 to {memory['longest_value_bytes']:,} bytes put into "
        f"{memory['bound_bytes'] >> 20} MiB, {memory['us_per_insert']:g} µs each: at most "
        f"{memory['allocated_share']:.1%} of the bound by the allocator's count, "
        f"{memory['resident_share']:.1%} by the system's."
    )
    parts = (
        _table(("a hit in memory", "mesh µs a row", "aiocache µs a row", "ratio (lowest to highest round)"), hits),
        _table(("a call, µs", "hit", "idle node", "empty servicer", "empty echo", "to servicer", "to echo"), hops),
        _table(("64 keys on a Valkey server", "ms", "times the multi-get"), keys),
        f"µs a row for the key alone: {digests}.",
        shares,
    )
    return "\n\n".join(parts)


def _batches(told: dict[str, Any]) -> str:
    rows = [
        (
            f"{told['rows']:,} rows",
            f"{told['rows_per_s']:,}",
            f"{1e6 / told['other_us']:,.0f}",
            _spread(told),
            f"**{told['share_of_bare']:.2f}**",
            f"{told['whole_s']}",
            f"{told['resident_mib']}",
        ),
        (
            f"{told['rows'] * told['times']:,} rows",
            f"{told['rows_per_s_of_more']:,}",
            *[""] * 4,
            f"{told['resident_mib_of_more']}",
        ),
    ]
    head = (
        "file",
        "batch, rows a second",
        "bare loop, rows a second",
        "time, of bare",
        "speed, of bare",
        "command s",
        "memory MiB",
    )
    return _table(head, rows)


def _jobs(told: dict[str, Any]) -> str:
    ways = {"bare": "bare nats-py publish", "unkeyed": "submission", "keyed": "submission with a key"}
    rows = [
        (f"{name}, {in_flight} at once", f"{one['per_s']:,.0f}", f"{one['p50_ms']:.1f}", f"{one['p99_ms']:.1f}")
        for in_flight, sides in told["submit"].items()
        for name, one in ((name, sides[way]) for way, name in ways.items())
    ]
    names = {
        "call": "a call",
        "submission": "a submission",
        "job": "a job, from its submission to its answer",
        "overhead": "the job less the call",
    }
    waits = [
        (name, f"{told['overhead'][one]['p50_ms']:.1f}", f"{told['overhead'][one]['p99_ms']:.1f}")
        for one, name in names.items()
    ]
    whole = told["whole"]
    note = (
        f"{whole['jobs']:,} jobs, from the first submission to the last end: **{whole['per_s']:,.0f}** a second, by "
        "two workers. The same number of messages through a bare queue (published, fetched, and taken off it for good, "
        f"with no results and no attempts): {whole['bare']:,.0f} a second."
    )
    parts = (
        _table(("stored on disk", "a second", "median ms", "p99 ms"), rows),
        _table(("one at a time", "median ms", "p99 ms"), waits),
        note,
    )
    return "\n\n".join(parts)


TABLES = {
    "fused_chain": _fused_chain,
    "flow": _flow,
    "batching": _batching,
    "remote_hop": _remote_hop,
    "wire": _wire,
    "caches": _caches,
    "jobs": _jobs,
    "soak": soak_table,
    "batches": _batches,
    "soak_batches": soak_batches_table,
    "compiling": _compiling,
}
"""Topic -> what makes its table."""
