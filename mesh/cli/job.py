"""`mesh job submit | get | watch | list | cancel | replay`: work that a running mesh does later, and keeps until then.

mesh job submit ADDRESS -i name=value            store a job, and print its id
mesh job submit ADDRESS -i x=@many.npy --each    one job a row
mesh job watch ADDRESS ID                        each state, each branch's outputs as they come, the answer
mesh job get ADDRESS ID                          where it stands, its attempts, its outputs
mesh job list ADDRESS --state failed             the dead letter, one line a job
mesh job cancel ADDRESS ID                       end it
mesh job replay ADDRESS ID                       submit one that failed again, and print the new id
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from mesh.cli.answers import save_answer
from mesh.cli.connect import connect
from mesh.cli.inputs import INPUT_HELP, read_inputs
from mesh.cli.job_told import job_page, job_table, json_of_job, standing
from mesh.cli.job_watching import raise_unless_done, show_watch
from mesh.cli.terminal import duration, run_until_interrupted, saying, show
from mesh.errors import RequestError, SetupError
from mesh.jobs.client import PATIENCE_S, JobClient
from mesh.jobs.records import RUNS, Callback, Job, JobState, Lane
from mesh.tensors import Tensors
from mesh.transports import DEFAULT_ENGINE, ENGINES

__all__ = ["add"]

Run = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]

EXIT_NOT_SO = 1
ROWS_AT_ONCE = 64
"""Jobs that are submitted side by side with --each: the store writes them to disk together."""
PAGE = 500


def add(commands: Any) -> None:
    """Add the command, which has commands of its own."""
    made = commands.add_parser(
        "job",
        help="have a running mesh do something later, and look after it",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_submit(_verb(verbs, "submit", _submit, "store a job, and print its id"))
    watch = _verb(verbs, "watch", _watch, "follow a job to its end", of_one=True)
    get = _verb(verbs, "get", _get, "where a job stands, its attempts, its outputs", of_one=True)
    jobs = _verb(verbs, "list", _list, "jobs in a table: first those that wait or run, then those that are over")
    _verb(verbs, "cancel", _cancel, "end a job", of_one=True)
    _verb(verbs, "replay", _replay, "submit a job that failed again, and print the new id", of_one=True)
    states = [state.value for state in JobState]
    jobs.add_argument("--state", action="append", default=[], choices=states, help="only these; may be given again")
    jobs.add_argument("--limit", type=_count, default=100, metavar="N", help="most jobs (default: 100)")
    watch.add_argument(
        "--patience", type=duration, default=PATIENCE_S, help="how long to wait for a gateway that goes (default: 30s)"
    )
    for one in (watch, get):
        one.add_argument("-o", "--output", type=Path, help="also save the outputs' arrays to this .npz file")


def _verb(verbs: Any, name: str, run: Run, help_: str, *, of_one: bool = False) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=help_)
    made.add_argument("address", metavar="ADDRESS", help="grpc://host:port or unix:/path of the gateway")
    if of_one:
        made.add_argument("id", metavar="ID", help="the job's id")
    made.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC on this side")
    made.add_argument("--json", action="store_true", help="print JSON, one object a line")

    def run_it(arguments: argparse.Namespace) -> int:
        return run_until_interrupted(run(arguments))

    made.set_defaults(run=run_it)
    return made


def _add_submit(made: argparse.ArgumentParser) -> None:
    made.add_argument("-i", "--input", action="append", default=[], metavar="NAME=VALUE", help=INPUT_HELP)
    made.add_argument("--graph", default="", help="the graph's name (default: the gateway's own)")
    made.add_argument("--key", default="", help="idempotency key: asked again with it, the mesh stores nothing twice")
    made.add_argument(
        "--priority", choices=[lane.name.lower() for lane in RUNS], default="normal", help="who is taken first"
    )
    made.add_argument("--timeout", type=duration, help="how long it may take, waiting included (default: for ever)")
    made.add_argument("--callback", default="", metavar="URL", help="who is told of its end: http(s):// or grpc://")
    made.add_argument("--timings", action="store_true", help="keep where the time went, node by node")
    made.add_argument("--each", action="store_true", help="one job a row; a key becomes KEY/0, KEY/1, ...")
    made.add_argument("--wait", action="store_true", help="follow it to its end, as `mesh job watch` does")
    made.add_argument("-o", "--output", type=Path, help="with --wait: also save the outputs to this .npz file")


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1,000,000")
    return int(text)


# Submitting.


async def _submit(arguments: argparse.Namespace) -> int:
    if arguments.each and arguments.wait:
        raise SetupError("--wait follows one job: it does not go with --each")
    if arguments.output and not arguments.wait:
        raise SetupError("--output saves an answer: it goes with --wait")
    async with connect(arguments.address, arguments.graph, arguments.engine) as served:
        inputs = read_inputs(arguments.input, served.told.inputs)
    async with _client(arguments) as jobs:
        if arguments.each:
            return await _submit_each(jobs, inputs, arguments)
        with saying("waiting for the job to be stored"):
            job, existed = await _submitted(jobs, inputs, arguments, arguments.key)
        if existed:
            print(f"was there already: {standing(job)}", file=sys.stderr)
        if not arguments.wait or not arguments.json:
            print(json.dumps(json_of_job(job)) if arguments.json else job.id, flush=True)
        return await _watched(jobs, job.id, PATIENCE_S, arguments) if arguments.wait else 0


async def _submit_each(jobs: JobClient, inputs: Tensors, arguments: argparse.Namespace) -> int:
    """One job a row, in their order; stops after the rows among which one was refused.

    Raises:
        RequestError: One was; says how many were stored. Their ids were printed.
    """
    stored = 0
    for start in range(0, inputs.rows, ROWS_AT_ONCE):
        rows = range(start, min(start + ROWS_AT_ONCE, inputs.rows))
        keys = [f"{arguments.key}/{row}" if arguments.key else "" for row in rows]
        submitting = (
            _submitted(jobs, inputs.take(row, row + 1), arguments, key) for row, key in zip(rows, keys, strict=True)
        )
        refused: list[RequestError] = []
        for row, found in zip(rows, await asyncio.gather(*submitting, return_exceptions=True), strict=True):
            if isinstance(found, RequestError):
                found.row = row
                refused.append(found)
            elif isinstance(found, BaseException):
                raise found
            else:
                stored += 1
                print(json.dumps({"row": row, **json_of_job(found[0])}) if arguments.json else found[0].id)
        if refused:
            print(f"{stored:,} of {inputs.rows:,} rows are stored", file=sys.stderr)
            raise refused[0]
    return 0


async def _submitted(jobs: JobClient, inputs: Tensors, arguments: argparse.Namespace, key: str) -> tuple[Job, bool]:
    told: str = arguments.callback
    callback = Callback(listener=told) if told.startswith("grpc://") else Callback(url=told)
    return await jobs.submit(
        inputs,
        graph=arguments.graph,
        report=arguments.timings,
        key=key,
        priority=Lane[arguments.priority.upper()],
        timeout_s=arguments.timeout,
        callback=callback if told else None,
    )


# Looking after them.


async def _watch(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as jobs:
        return await _watched(jobs, arguments.id, arguments.patience, arguments)


async def _watched(jobs: JobClient, id_: str, patience_s: float, arguments: argparse.Namespace) -> int:
    job = await show_watch(jobs.watch(id_, patience_s=patience_s), as_json=arguments.json)
    raise_unless_done(job)
    _save(job, arguments.output)
    return 0


async def _get(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as jobs:
        with saying(f"waiting for {arguments.address}"):
            job = await jobs.get(arguments.id)
    if arguments.json:
        print(json.dumps(json_of_job(job)))
    else:
        show(*job_page(job))
    _save(job, arguments.output)
    return 0


def _save(job: Job, path: Path | None) -> None:
    if path is None:
        return
    if job.outputs is None:
        raise SetupError(f"{path} is not written: the job has no outputs ({standing(job)})")
    save_answer(path, job.outputs)


async def _list(arguments: argparse.Namespace) -> int:
    states = [JobState(state) for state in arguments.state]
    found: list[Job] = []
    token = ""
    async with _client(arguments) as jobs:
        with saying(f"waiting for {arguments.address}"):
            while True:
                page = await jobs.list(states, size=min(PAGE, arguments.limit - len(found)), token=token)
                found += page.jobs
                token = page.next_token
                if not token or len(found) >= arguments.limit:
                    break
    if arguments.json:
        for job in found:
            print(json.dumps(json_of_job(job)))
    else:
        show(job_table(found))
    if token:
        print(f"there may be more than {arguments.limit:,}: --limit shows them", file=sys.stderr)
    return 0


async def _cancel(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as jobs:
        job = await jobs.cancel(arguments.id)
    print(json.dumps(json_of_job(job)) if arguments.json else standing(job))
    return 0 if job.state is JobState.CANCELLED else EXIT_NOT_SO


async def _replay(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as jobs:
        job = await jobs.replay(arguments.id)
    print(json.dumps(json_of_job(job)) if arguments.json else job.id)
    return 0


def _client(arguments: argparse.Namespace) -> JobClient:
    return JobClient(arguments.address, engine=arguments.engine)
