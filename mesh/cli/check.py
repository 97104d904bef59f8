"""`mesh check FILE...`: every mistake in topology files, before anything is started."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mesh.errors import TopologyError
from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.topology.render import later_of

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("check", help="find every mistake in topology files", description=__doc__)
    made.add_argument("files", nargs="+", type=Path, metavar="FILE")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 when every file is right, 2 when one is not."""
    mistakes = 0
    for file in arguments.files:
        try:
            compiled = compile_file(file, LAYERS)
        except TopologyError as error:
            mistakes += len(error.problems)
            print(error, file=sys.stderr)
        else:
            graph = compiled.graph
            print(f"{file}: {graph.name}: {len(graph.nodes)} nodes, placements {', '.join(compiled.placements)}: ok")
            for line in later_of(graph):
                print(f"  {line}")
    if mistakes:
        print(f"{mistakes} mistake{'s' if mistakes > 1 else ''}", file=sys.stderr)
    return 2 if mistakes else 0
