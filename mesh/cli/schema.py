"""`mesh schema`: the JSON Schema of topology files, for editors that complete and check as you type."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mesh.layers import LAYERS
from mesh.topology.schema import json_schema

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("schema", help="print the JSON Schema of topology files", description=__doc__)
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    print(json.dumps(json_schema(LAYERS), indent=2))
    return 0
