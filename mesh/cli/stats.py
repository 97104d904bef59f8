"""`mesh stats ADDRESS`: what a running mesh has counted, node by node; at a worker that is no gateway, what it has."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from mesh.cli.connect import asking
from mesh.cli.counted import json_of_statistics
from mesh.cli.terminal import printable, run_until_interrupted, show
from mesh.errors import NotFound
from mesh.transports import DEFAULT_ENGINE, ENGINES, GrpcTransport, Limits
from mesh.transports.statistics import BUCKETS, NodeStatistics, Statistics
from mesh.units import format_duration, format_size

__all__ = ["add", "ask", "cache_tables", "tables"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("stats", help="show what a running mesh has counted", description=__doc__)
    made.add_argument("address", metavar="ADDRESS", help="grpc://host:port or unix:/path")
    made.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC on this side")
    made.add_argument("--own", action="store_true", help="of a gateway only what its own process has counted")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show."""
    told = run_until_interrupted(ask(arguments.address, arguments.engine, own=arguments.own))
    if arguments.json:
        print(json.dumps(json_of_statistics(told)))
    else:
        show(*tables(told))
    return 0


async def ask(address: str, engine: str = DEFAULT_ENGINE, *, own: bool = False) -> Statistics:
    """What is counted at an address.

    Raises:
        PlacementError: `address` is no address.
        RequestError: Nobody answers there, or nobody counts; names the address.
    """
    link = await GrpcTransport(engine).dial(address, Limits())
    try:
        with asking(address):
            return await link.stats(own=own)
    except NotFound:
        raise NotFound(f"{address} keeps no statistics: is it a mesh?") from None
    finally:
        await link.close()


def tables(told: Statistics) -> Iterator[Any]:
    """Everything, for people: means in milliseconds; queue for each row, compute for each batch, the rest for each
    request that was answered.
    """
    from rich.text import Text

    for graph in told.graphs[:1] if told.graph else ():
        parts = [f"{graph.requests:,} requests", f"{graph.rows:,} rows", f"{graph.failed:,} failed"]
        parts += [f"{graph.in_flight:,} in flight", f"{_mean(graph.elapsed_s, graph.answered)} ms each"]
        yield Text(f"{printable(graph.graph)}: {', '.join(parts)}", style="bold")
    yield _nodes(told.nodes)
    if errors := [f"{printable(one.node)}: {_errors(one)}" for one in told.nodes if one.errors]:
        yield from map(Text, ["", *errors])
    if layered := [one for one in told.nodes if one.batches != one.requests or sum(one.batch_rows[1:])]:
        yield from ("", _batches(layered))
    if told.branches:
        yield from ("", _branches(told))
    if told.arms:
        yield from ("", _arms(told))
    if told.shadows:
        yield from ("", _shadows(told))
    for table in cache_tables(told):
        yield from ("", table)
    yield ""
    since = [f"{one.worker} ({one.pid}) for {format_duration(round(one.counting_s, 1))}" for one in told.workers]
    yield Text(printable(f"counted by {', '.join(since)}"), style="dim")
    for one in told.missing:
        replica = f"-{one.replica}" if one.replica else ""
        yield Text(printable(f"{one.worker}{replica} did not tell: {one.error.code}: {one.error.text}"), style="red")


def _table(*columns: str, left: int = 1) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _nodes(nodes: Sequence[NodeStatistics]) -> Any:
    from rich.text import Text

    columns = ("requests", "rows", "skipped", "failed", "in flight", "ms each", "queue ms", "compute ms", "wire ms")
    table = _table("node", *columns)
    for one in nodes:
        table.add_row(
            Text(printable(one.node)),
            *(f"{count:,}" for count in (one.requests, one.rows, one.rows_skipped, one.failed, one.in_flight)),
            _mean(one.elapsed_s, one.answered),
            _mean(one.queue_s, one.rows),
            _mean(one.compute_s, one.batches),
            _mean(one.wire_s, one.answered),
        )
    return table


def _mean(total_s: float, count: int) -> str:
    return f"{total_s / count * 1e3:.2f}" if count > 0 else "-"


def _errors(node: NodeStatistics) -> str:
    return ", ".join(f"{count:,} {printable(code)}" for code, count in node.errors.items())


def _batches(nodes: Sequence[NodeStatistics]) -> Any:
    from rich.text import Text

    used = max(len(one.batch_rows) for one in nodes)
    names = [f"≤{bound}" for bound in BUCKETS] + [f">{BUCKETS[-1]}"]
    table = _table("batches by rows", "mean", *names[:used])
    for one in nodes:
        counts = [*one.batch_rows, *[0] * (used - len(one.batch_rows))]
        mean = f"{one.rows / one.batches:.1f}" if one.batches else "-"
        table.add_row(Text(printable(one.node)), mean, *(f"{count:,}" for count in counts))
    return table


def _branches(told: Statistics) -> Any:
    from rich.text import Text

    columns = ("answered", "failed", "late", "without rows", "behind ms", "at most")
    table = _table("join", "branch", *columns, left=2)
    for node, branches in groupby(told.branches, key=lambda one: one.node):
        for one in branches:
            joined = one.answered + one.late + one.without_rows
            table.add_row(
                Text(printable(node)),
                Text(printable(one.branch)),
                *(f"{count:,}" for count in (one.answered, one.failed, one.late, one.without_rows)),
                _mean(one.behind_s, joined),
                f"{one.max_behind_s * 1e3:.2f}",
            )
    return table


def _arms(told: Statistics) -> Any:
    from rich.text import Text

    table = _table("split", "arm", "rows", "share", left=2)
    for split, arms in groupby(told.arms, key=lambda one: one.split):
        every = list(arms)
        total = sum(one.rows for one in every)
        for one in every:
            share = f"{100 * one.rows / total:.1f} %" if total else "-"
            table.add_row(Text(printable(split)), Text(printable(one.node)), f"{one.rows:,}", share)
    return table


def cache_tables(told: Statistics) -> Iterator[Any]:
    """What caches spared their nodes, and how each cache does in each process, with its tiers below it."""
    from rich.text import Text

    if told.cached:
        columns = ("hits", "computed", "coalesced", "stale", "refused", "broken", "spared", "saved s")
        table = _table("cached node", "cache", *columns, left=2)
        for one in told.cached:
            counts = (one.hits, one.misses, one.coalesced, one.stale, one.negative, one.broken)
            ratio = "-" if one.hit_ratio is None else f"{one.hit_ratio:.1%}"
            names = (Text(printable(one.node)), Text(printable(one.cache)))
            table.add_row(*names, *(f"{count:,}" for count in counts), ratio, f"{one.saved_s:.2f}")
        yield table
    if told.caches:
        columns = ("hits", "misses", "kept", "evicted", "expired", "failed", "entries", "size", "of")
        table = _table("cache", "in", "by", *columns, left=3)
        for one in told.caches:
            where = f"{one.tier}. {one.backend}" if one.tier else one.backend
            names = [Text(printable(name)) for name in (one.cache, where, one.holder)]
            counts = (one.hits, one.misses, one.kept, one.evictions, one.expirations, one.failures)
            entries = "-" if one.entries is None else f"{one.entries:,}"
            sizes = ("-" if size is None else format_size(size) for size in (one.nbytes, one.max_bytes))
            table.add_row(*names, *(f"{count:,}" for count in counts), entries, *sizes)
        yield table


def _shadows(told: Statistics) -> Any:
    from rich.text import Text

    table = _table("shadow", "of", "alike", "unlike", "failed", "dropped", left=2)
    for one in told.shadows:
        counts = (one.rows_alike, one.rows_unlike, one.failed, one.dropped)
        table.add_row(Text(printable(one.node)), Text(printable(one.target)), *(f"{count:,}" for count in counts))
    return table
