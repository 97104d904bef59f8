"""`mesh graph FILE`: the graph as a picture (Mermaid, SVG) or as JSON; with `--stats`, what a running mesh counted."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mesh.cli.counted import json_of_statistics, line_notes, node_notes
from mesh.cli.stats import ask
from mesh.cli.terminal import run_until_interrupted
from mesh.errors import SetupError
from mesh.layers import LAYERS
from mesh.topology import Plan, compile_file
from mesh.topology.render import mermaid, svg, to_json
from mesh.transports.statistics import Statistics

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("graph", help="draw a topology", description=__doc__)
    made.add_argument("file", type=Path, metavar="FILE")
    made.add_argument("--placement", default="fused", help="whose workers to show (default: fused)")
    made.add_argument("--format", choices=["mermaid", "svg", "json"], default="mermaid")
    made.add_argument("--stats", metavar="ADDRESS", help="show what the mesh that answers there has counted")
    made.add_argument("-o", "--output", type=Path, help="write to this file instead of standard output")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw."""
    plan = compile_file(arguments.file, LAYERS).plan(arguments.placement)
    told = _counted(plan, arguments.stats) if arguments.stats else Statistics()
    notes, lines = (node_notes(told), line_notes(told, plan)) if arguments.stats else ({}, {})
    match arguments.format:
        case "svg":
            text = svg(plan, notes, lines)
        case "json":
            shown = to_json(plan)
            if arguments.stats:
                shown["statistics"] = json_of_statistics(told)
            text = json.dumps(shown, indent=2)
        case _:
            text = mermaid(plan, notes, lines)
    if not text.endswith("\n"):
        text += "\n"
    if arguments.output:
        arguments.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


def _counted(plan: Plan, address: str) -> Statistics:
    told = run_until_interrupted(ask(address))
    if told.graph != plan.graph.name:
        what = f"the graph {told.graph!r}" if told.graph else "no whole graph"
        raise SetupError(f"{address} serves {what}, and {plan.graph.file} is {plan.graph.name!r}")
    for one in told.missing:
        print(f"{one.worker} did not tell: {one.error.code}: {one.error.text}", file=sys.stderr)
    return told
