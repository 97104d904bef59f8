"""`mesh call ADDRESS --input name=value`: ask a running mesh once and show the answer."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from mesh.cli.answers import answer_table, save_answer
from mesh.cli.connect import connect
from mesh.cli.inputs import INPUT_HELP, read_inputs
from mesh.cli.jsonable import json_of_tensors
from mesh.cli.reports import json_of_report, missing_branches, report_tables
from mesh.cli.streaming import show_stream
from mesh.cli.terminal import duration, run_until_interrupted, saying, show
from mesh.context import Context
from mesh.errors import SetupError
from mesh.tensors import Tensors
from mesh.transports import DEFAULT_ENGINE, ENGINES

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("call", help="ask a running mesh once", description=__doc__)
    made.add_argument("address", metavar="ADDRESS", help="grpc://host:port or unix:/path")
    made.add_argument("-i", "--input", action="append", default=[], metavar="NAME=VALUE", help=INPUT_HELP)
    made.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC on this side")
    made.add_argument("--graph", default="", help="the graph's name (default: the gateway's own)")
    made.add_argument("--timeout", type=duration, default=30.0, help="the request's deadline (default: 30s)")
    made.add_argument("--timings", action="store_true", help="show where the time went, node by node")
    made.add_argument("--stream", action="store_true", help="show what each branch and output gives as it comes")
    made.add_argument("--json", action="store_true", help="print JSON; with --stream one object a line")
    made.add_argument("-o", "--output", type=Path, help="also save the answer's arrays to this .npz file")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show."""
    if arguments.stream and arguments.output:
        raise SetupError("--output saves a whole answer: it does not go with --stream")
    return run_until_interrupted(_call(arguments))


async def _call(arguments: argparse.Namespace) -> int:
    async with connect(arguments.address, arguments.graph, arguments.engine) as served:
        request = read_inputs(arguments.input, served.told.inputs)
        context = Context(timings=[] if arguments.timings else None, joins=[]).within(arguments.timeout)
        if arguments.stream:
            return await show_stream(served, request, context, as_json=arguments.json)
        started = time.perf_counter()
        with saying(f"waiting for the answer of {arguments.address}"):
            answer = await served.handler(request, context)
        elapsed_s = time.perf_counter() - started
    if arguments.json:
        print(json.dumps(_jsonable(answer, context, elapsed_s)))
    else:
        _show(answer, context, elapsed_s)
    if arguments.output:
        save_answer(arguments.output, answer)
    return 0


def _jsonable(answer: Tensors, context: Context, elapsed_s: float) -> dict[str, Any]:
    return {
        "request_id": context.request_id,
        "outputs": json_of_tensors(answer),
        "elapsed_ms": elapsed_s * 1e3,
        **json_of_report(context),
    }


def _show(answer: Tensors, context: Context, elapsed_s: float) -> None:
    from rich.text import Text

    parts = answer_table(answer)
    parts += map(Text, missing_branches(context.joins or ()))
    parts += report_tables(context)
    show(*parts, Text(f"{elapsed_s * 1e3:.2f} ms", style="dim"))
