"""`mesh up FILE`: check a topology, then launch its workers and keep them alive.

Where the file has jobs, a store for them is launched as well, unless it names one elsewhere, and workers on jobs.

The first SIGINT or SIGTERM drains: the gateway first, so that nothing accepted is lost. The second ends everything at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mesh.cli.launching import DEFAULT_LISTEN, choose, hold_data, plan_launches, run_launched
from mesh.cli.terminal import duration
from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.transports import ENGINES
from mesh.transports.grpc import target_of

__all__ = ["add"]

LONGEST_GRACE_S = 3600.0


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("up", help="launch the workers of a topology", description=__doc__)
    made.add_argument("file", type=Path, metavar="FILE")
    made.add_argument(
        "--placement", default="fused", metavar="NAME", help="fused, processes, or one of the file's (default: fused)"
    )
    made.add_argument(
        "--listen",
        metavar="ADDRESS",
        help=f"the gateway's address (default: the file's, else {DEFAULT_LISTEN}; port 0 lets the system choose)",
    )
    made.add_argument("--engine", choices=sorted(ENGINES), help="what speaks gRPC (default: the file's)")
    made.add_argument(
        "--workers",
        metavar="NAMES",
        help="launch only these workers here, by name, with commas between; jobs for those that work on jobs",
    )
    made.add_argument("--data", type=Path, metavar="FOLDER", help="where jobs are kept (default: the file's)")
    made.add_argument(
        "--grace", type=_grace, default=10.0, help="most time for calls in flight at the end (default: 10s)"
    )
    made.set_defaults(run=run)


def _grace(text: str) -> float:
    grace_s = duration(text)
    if grace_s > LONGEST_GRACE_S:
        raise argparse.ArgumentTypeError(f"{text} is more than an hour")
    return grace_s


def run(arguments: argparse.Namespace) -> int:
    """Launch, and stay until told to leave; returns the supervisor's exit status."""
    if arguments.listen:
        target_of(arguments.listen)  # a wrong address is told before the models are read
    plan = compile_file(arguments.file, LAYERS).plan(arguments.placement)
    chosen = choose(plan, arguments.workers)
    with ExitStack() as lifetime:
        plan, own = hold_data(plan, chosen, arguments.data, lifetime)
        # In the mesh's own folder nobody else may look: sockets there have no other lock.
        folder = Path(lifetime.enter_context(tempfile.TemporaryDirectory(prefix="mesh-")))
        launches = plan_launches(
            plan,
            chosen,
            folder,
            listen=arguments.listen,
            file_folder=arguments.file.resolve().parent,
            grace_s=arguments.grace,
            engine=arguments.engine or plan.graph.engine,
            own=own,
        )
        return asyncio.run(run_launched(plan, launches, arguments.grace, own))
