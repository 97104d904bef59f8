"""`mesh batch`: the graph over files: `run` here and now; `start` and its like at a running mesh."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.cli import batch_run, batch_schedules
from mesh.cli.batch_arguments import add_batch_arguments, batch_of_arguments
from mesh.cli.batch_progress import BatchProgress
from mesh.cli.batch_told import batch_page, batch_table, json_of_batch, raise_unless_done, standing
from mesh.cli.connect import asking
from mesh.cli.terminal import run_until_interrupted, show
from mesh.jobs.batches.client import BatchClient
from mesh.jobs.batches.messages import Batch
from mesh.transports import DEFAULT_ENGINE, ENGINES

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command and its verbs."""
    made = commands.add_parser("batch", help="run a graph over files", description=__doc__)
    verbs = made.add_subparsers(title="verbs", metavar="VERB", required=True)
    batch_run.add(verbs)
    start = _verb(verbs, "start", "begin a batch at a running mesh", _start)
    add_batch_arguments(start)
    start.add_argument("--graph", default="", help="the graph's name (default: the gateway's own)")
    start.add_argument("--key", default="", help="idempotency key: asked again with it, the mesh begins nothing twice")
    start.add_argument("--wait", action="store_true", help="follow it to its end")
    get = _verb(verbs, "get", "one batch as it stands", _get, of_one=True)
    get.add_argument("--wait", action="store_true", help="follow it to its end")
    listed = _verb(verbs, "list", "batches: those under way first", _list)
    listed.add_argument("--limit", type=_count, default=100, metavar="N", help="most batches (default: 100)")
    _verb(verbs, "cancel", "end a batch; what is written stays", _cancel, of_one=True)
    resume = _verb(verbs, "resume", "go on with one that failed or was cancelled", _resume, of_one=True)
    resume.add_argument("--wait", action="store_true", help="follow it to its end")
    batch_schedules.add(verbs)


_Work = Callable[[BatchClient, argparse.Namespace], Coroutine[Any, Any, None]]


def _verb(verbs: Any, name: str, summary: str, work: _Work, *, of_one: bool = False) -> Any:
    made = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    made.add_argument("address", metavar="ADDRESS", help="grpc://host:port or unix:/path of the gateway")
    if of_one:
        made.add_argument("id", metavar="ID", help="the batch's id")
    made.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC on this side")
    made.add_argument("--json", action="store_true", help="print JSON, one object a line")

    async def asked(arguments: argparse.Namespace) -> None:
        async with BatchClient(arguments.address, engine=arguments.engine) as batches:
            await work(batches, arguments)

    def run(arguments: argparse.Namespace) -> int:
        run_until_interrupted(asked(arguments))
        return 0

    made.set_defaults(run=run)
    return made


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 100000")
    return int(text)


async def _start(batches: BatchClient, arguments: argparse.Namespace) -> None:
    batch = batch_of_arguments(arguments)
    with asking(arguments.address):
        begun = await batches.start(batch, graph=arguments.graph, key=arguments.key)
    await _follow(batches, begun, arguments)


async def _get(batches: BatchClient, arguments: argparse.Namespace) -> None:
    with asking(arguments.address):
        batch = await batches.get(arguments.id)
    if arguments.wait and not batch.over:
        await _follow(batches, batch, arguments)
    elif arguments.json:
        print(json.dumps(json_of_batch(batch)))
    else:
        show(batch_page(batch))


async def _list(batches: BatchClient, arguments: argparse.Namespace) -> None:
    found: list[Batch] = []
    token = ""
    with asking(arguments.address):
        while len(found) < arguments.limit:
            page, token = await batches.list(size=min(arguments.limit - len(found), 1000), token=token)
            found += page
            if not token:
                break
    if arguments.json:
        for batch in found:
            print(json.dumps(json_of_batch(batch)))
    else:
        show(batch_table(found))


async def _cancel(batches: BatchClient, arguments: argparse.Namespace) -> None:
    with asking(arguments.address):
        batch = await batches.cancel(arguments.id)
    print(json.dumps(json_of_batch(batch)) if arguments.json else standing(batch))


async def _resume(batches: BatchClient, arguments: argparse.Namespace) -> None:
    with asking(arguments.address):
        begun = await batches.resume(arguments.id)
    await _follow(batches, begun, arguments)


async def _follow(batches: BatchClient, begun: Batch, arguments: argparse.Namespace) -> None:
    """Say what was begun; and how it ended, where that is waited for."""
    if not arguments.wait:
        print(json.dumps(json_of_batch(begun)) if arguments.json else begun.id)
        return
    if not arguments.json:
        print(begun.id, flush=True)
    with BatchProgress() as progress:
        batch = await batches.wait(begun.id, told=progress.tell)
    if arguments.json:
        print(json.dumps(json_of_batch(batch)))
    else:
        show(batch_page(batch))
    raise_unless_done(batch)
