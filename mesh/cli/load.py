"""`mesh load ADDRESS --input name=value`: send many requests and report how long they took.

A closed loop keeps so many requests in flight (`--concurrency`); an open loop sends at a rate whatever the answers do
(`--rate`), and counts latency from the instant at which a request should have been sent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mesh.cli.connect import connect
from mesh.cli.inputs import INPUT_HELP, read_inputs
from mesh.cli.terminal import WIPE, duration, run_until_interrupted, show
from mesh.context import Context, NodeTiming
from mesh.errors import SetupError
from mesh.load import LoadPlan, Progress, Report, precise_event_loop, render, run_load
from mesh.transports import DEFAULT_ENGINE, ENGINES

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("load", help="load a running mesh and report latencies", description=__doc__)
    made.add_argument("address", metavar="ADDRESS", help="grpc://host:port or unix:/path")
    made.add_argument("-i", "--input", action="append", default=[], metavar="NAME=VALUE", help=INPUT_HELP)
    made.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC on this side")
    made.add_argument("--graph", default="", help="the graph's name (default: the gateway's own)")
    made.add_argument("--rows", type=int, default=1, help="rows a request; taken from the inputs in turn (default: 1)")
    loop = made.add_mutually_exclusive_group()
    loop.add_argument("-c", "--concurrency", type=int, default=1, help="closed loop: requests in flight (default: 1)")
    loop.add_argument("-r", "--rate", type=float, help="open loop: requests a second")
    made.add_argument("--poisson", action="store_true", help="with --rate: random arrivals instead of even ones")
    made.add_argument("-d", "--duration", type=duration, default=10.0, help="how long to measure (default: 10s)")
    made.add_argument("-n", "--requests", type=int, help="stop after so many requests")
    made.add_argument("--warm-up", type=duration, default=1.0, help="sent before, not measured (default: 1s)")
    made.add_argument(
        "--max-in-flight", type=int, default=1024, help="open loop: arrivals past it are not sent, and counted"
    )
    made.add_argument("--timeout", type=duration, default=10.0, help="the deadline of a request (default: 10s)")
    made.add_argument("--seed", type=int, default=0, help="of the random arrivals")
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    made.add_argument("-o", "--output", type=Path, help="also save the report as JSON to this file")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load and report; 1 when no request was answered."""
    plan = _plan(arguments)
    if arguments.output:
        arguments.output.touch()  # told now rather than after the measurement, where it cannot be written
    report = run_until_interrupted(_load(arguments, plan), precise_event_loop)
    told = json.dumps(report.to_json(), indent=2)
    if arguments.output:
        arguments.output.write_text(f"{told}\n")
    if arguments.json:
        print(told)
    else:
        show(render(report))
    if report.interrupted:
        raise KeyboardInterrupt
    return 0 if report.answered else 1


def _plan(arguments: argparse.Namespace) -> LoadPlan:
    if arguments.rate is None and arguments.poisson:
        raise SetupError("--poisson needs --rate")
    return LoadPlan(
        mode="closed" if arguments.rate is None else "poisson" if arguments.poisson else "constant",
        concurrency=arguments.concurrency,
        rate_per_s=arguments.rate,
        duration_s=arguments.duration,
        requests=arguments.requests,
        warm_up_s=arguments.warm_up,
        max_in_flight=arguments.max_in_flight,
        timeout_s=arguments.timeout,
        seed=arguments.seed,
    )


async def _load(arguments: argparse.Namespace, plan: LoadPlan) -> Report:
    async with connect(arguments.address, arguments.graph, arguments.engine) as served:
        inputs = read_inputs(arguments.input, served.told.inputs)
        step, rows = arguments.rows, inputs.rows
        if not 1 <= step <= rows:
            raise SetupError(f"--rows {step}: the inputs have {rows} rows")
        requests = [inputs.take(start, start + step) for start in range(0, rows - step + 1, step)]

        async def send(index: int) -> Sequence[NodeTiming]:
            timings: list[NodeTiming] = []
            context = Context(timings=timings).within(plan.timeout_s)
            await served.handler(requests[index % len(requests)], context)
            return timings

        with _telling() as tell:
            return await run_load(send, plan, on_progress=tell)


@contextmanager
def _telling() -> Generator[Callable[[Progress], object] | None]:
    """Says how far it is, on a terminal only; the line is wiped out at the end."""
    if not sys.stderr.isatty():
        yield None
        return

    def tell(progress: Progress) -> None:
        what = "warming up" if progress.warming_up else f"{progress.fraction:4.0%}"
        counts = f"{progress.answered} answered, {progress.failed} failed, {progress.in_flight} in flight"
        print(f"{WIPE}{what}  {counts}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        print(WIPE, end="", file=sys.stderr, flush=True)
