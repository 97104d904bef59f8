"""`mesh batch run FILE`: a topology over files, here and now, by workers of its own.

It starts a store, the workers of the nodes and workers on jobs, has the batch done, and ends them again. Killed at any
point, it goes on with `--resume`: what is written is not done again. Ctrl-C lets the workers finish what they are at,
for as long as --grace; the second ends everything at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.cli.batch_arguments import add_batch_arguments, batch_of_arguments
from mesh.cli.batch_progress import BatchProgress
from mesh.cli.batch_told import batch_page, json_of_batch
from mesh.cli.launching import Chosen, hold_data, plan_launches, run_launched
from mesh.cli.terminal import duration, show
from mesh.errors import RequestError
from mesh.jobs.batches.desk import BatchDesk
from mesh.jobs.batches.messages import Batch, write_spec
from mesh.jobs.reaching import Reaching
from mesh.jobs.records import JobState
from mesh.jobs.settings import store_settings
from mesh.jobs.store.job_store import JobStore
from mesh.layers import LAYERS
from mesh.topology import Plan, compile_file
from mesh.topology.graph_jobs import GraphBatch, GraphJobs
from mesh.transports import ENGINES

__all__ = ["add"]

LOOK_S = 0.2
"""Seconds between two looks at how far it is."""
LEASE_S = 10.0
"""How long a worker may be silent before its shard is given to another: all are on this machine."""
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def add(verbs: Any) -> None:
    """Add the verb to those of `mesh batch`."""
    made = verbs.add_parser("run", help="run a topology over files, here and now", description=__doc__)
    made.add_argument("file", type=Path, metavar="FILE")
    add_batch_arguments(made)
    made.add_argument("--resume", action="store_true", help="go on with what is in the output folder")
    made.add_argument("--workers", type=_workers, default=1, metavar="N", help="processes that work on it (default: 1)")
    made.add_argument(
        "--placement", default="fused", metavar="NAME", help="fused, processes, or one of the file's (default: fused)"
    )
    made.add_argument("--engine", choices=sorted(ENGINES), help="what speaks gRPC (default: the file's)")
    made.add_argument(
        "--grace", type=duration, default=10.0, help="most time for shards under way when interrupted (default: 10s)"
    )
    made.add_argument("--json", action="store_true", help="print how it ended as JSON")
    made.set_defaults(run=run)


def _workers(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 256")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Look at it, launch, have it done, and tell how it ended."""
    from mesh.batches import check_batch

    batch = batch_of_arguments(arguments)
    plan = compile_file(arguments.file, LAYERS).plan(arguments.placement)
    # Before anything starts.
    check_batch(plan.graph, batch, resume=arguments.resume)
    with ExitStack() as lifetime:
        folder = Path(lifetime.enter_context(tempfile.TemporaryDirectory(prefix="mesh-")))
        # A store of its own, for this run alone: all that has to last is in the output folder.
        jobs = GraphJobs(folder=str(folder / "data"), workers=arguments.workers, lease_s=LEASE_S)
        plan = replace(plan, graph=replace(plan.graph, jobs=jobs, schedules=()))
        others = tuple(worker for worker in plan.workers if worker is not plan.gateway)
        chosen = Chosen(workers=others, jobs=arguments.workers)
        plan, own = hold_data(plan, chosen, None, lifetime)
        launches = plan_launches(
            plan,
            chosen,
            folder,
            listen=None,
            file_folder=arguments.file.resolve().parent,
            grace_s=arguments.grace,
            engine=arguments.engine or plan.graph.engine,
            own=own,
        )
        ended, code = asyncio.run(_launched(plan, launches, own, batch, arguments))
    return _told(ended, code, arguments)


async def _launched(
    plan: Plan, launches: Any, own: Any, batch: GraphBatch, arguments: argparse.Namespace
) -> tuple[Batch | None, int]:
    """How the batch ended, or None where it did not; and the supervisor's exit status."""
    over = asyncio.Event()
    running = asyncio.ensure_future(run_launched(plan, launches, arguments.grace, own, until=over, quiet=True))
    doing = asyncio.ensure_future(_done(plan, batch, resume=arguments.resume))
    try:
        await asyncio.wait((running, doing), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            doing.cancel()
            await asyncio.wait((doing,))
        over.set()
        code = await running
    finally:
        doing.cancel()
        over.set()
        await asyncio.wait((doing, running))
    return (None if doing.cancelled() else doing.result()), code


async def _done(plan: Plan, batch: GraphBatch, *, resume: bool) -> Batch:
    """Have the batch done.

    Raises:
        RequestError: It cannot be begun.
    """
    store = JobStore(store_settings(plan.graph))
    desk = BatchDesk(store, plan.graph, inputs=None, outputs=None)
    with BatchProgress() as progress:
        async with Reaching(store) as reaching:
            reaching.begin_later()
            await reaching.reached.wait()
            begun = await desk.start(write_spec(batch, plan.graph.name), resume=resume)
            while True:
                try:
                    batch_now = await desk.get(begun.id)
                    progress.tell(batch_now)
                    if batch_now.over:
                        return batch_now
                except RequestError as error:
                    # The store is started again where it fell.
                    if not error.retryable:
                        raise
                await asyncio.sleep(LOOK_S)


def _told(ended: Batch | None, code: int, arguments: argparse.Namespace) -> int:
    """Say how it ended; the exit status."""
    again = f"go on with: {_command(arguments)}"
    if ended is None:
        print(f"the batch is not done; {again}", file=sys.stderr)
        return code or EXIT_INTERRUPTED
    if arguments.json:
        print(json.dumps(json_of_batch(ended)))
    else:
        show(batch_page(ended))
    if ended.rows_failed and ended.state is JobState.DONE:
        print(f"rows that failed are in {arguments.output / 'errors.parquet'}", file=sys.stderr)
    if ended.state is not JobState.DONE:
        print(f"once it is put right, {again}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """What to type to go on."""
    import shlex

    return shlex.join(["mesh", *sys.argv[1:], *([] if arguments.resume else ["--resume"])])
