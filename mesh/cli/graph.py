"""`mesh graph FILE`: the graph as a picture (Mermaid, SVG) or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.topology.render import mermaid, svg, to_json

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("graph", help="draw a topology", description=__doc__)
    made.add_argument("file", type=Path, metavar="FILE")
    made.add_argument("--placement", default="fused", help="whose workers to show (default: fused)")
    made.add_argument("--format", choices=["mermaid", "svg", "json"], default="mermaid")
    made.add_argument("-o", "--output", type=Path, help="write to this file instead of standard output")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw."""
    plan = compile_file(arguments.file, LAYERS).plan(arguments.placement)
    match arguments.format:
        case "svg":
            text = svg(plan)
        case "json":
            text = json.dumps(to_json(plan), indent=2)
        case _:
            text = mermaid(plan)
    if not text.endswith("\n"):
        text += "\n"
    if arguments.output:
        arguments.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0
