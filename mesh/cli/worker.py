"""`mesh worker LAUNCH`: one worker process, of nodes or on jobs, as `mesh up` starts it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mesh.runtime.launch import JOBS, Launch, serve
from mesh.runtime.loop import collect_seldom, loop_factory, yield_to_models
from mesh.supervisor import hold_lifeline

__all__ = ["add"]

log = logging.getLogger("mesh.worker")


def add(commands: Any) -> None:
    """Add the command; it is for the supervisor, so the list of commands does not show it."""
    made = commands.add_parser("worker", description=__doc__)
    made.add_argument("launch", type=Path, metavar="LAUNCH", help="a file that `mesh up` wrote")
    made.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the first signal, leave at once on the second."""
    launch = Launch.read(arguments.launch)
    hold_lifeline(grace_s=launch.grace_s + 10.0)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    yield_to_models()
    collect_seldom()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(launch))
    return 0


async def _serve(launch: Launch) -> None:
    stop = asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            os._exit(1)  # the second signal: whatever is still running is given up
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    await _program_of(launch)(launch, stop, lambda addresses: log.info("listening at %s", ", ".join(addresses)))


def _program_of(launch: Launch) -> Callable[[Launch, asyncio.Event, Callable[[list[str]], object]], Awaitable[None]]:
    """Who runs it: only what has to do with jobs loads what they need."""
    plan = launch.plan
    if plan.graph.jobs is None or (launch.role != JOBS and launch.worker != plan.gateway.name):
        return serve
    from mesh.jobs import program

    return program.serve
