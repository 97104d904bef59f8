"""`mesh up FILE`: check a topology, then launch its workers and keep them alive.

The first SIGINT or SIGTERM drains: the gateway first, so that nothing accepted is lost. The second ends everything at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.errors import PlacementError
from mesh.layers import LAYERS
from mesh.runtime.launch import Launch, grpc_transports
from mesh.runtime.worker import limits_of
from mesh.supervisor import Announce, Policy, Process, State, supervise
from mesh.topology import Plan, Worker, compile_file
from mesh.transports.grpc import target_of
from mesh.units import parse_duration

__all__ = ["add"]

DEFAULT_LISTEN = "grpc://127.0.0.1:8001"
"""Where the gateway listens unless told otherwise: on loopback, at the port that inference servers commonly use."""


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("up", help="launch the workers of a topology", description=__doc__)
    made.add_argument("file", type=Path, metavar="FILE")
    made.add_argument(
        "--placement", default="fused", help="fused, processes, or one of the file's own (default: fused)"
    )
    made.add_argument(
        "--listen",
        help=f"the gateway's address (default: the file's, else {DEFAULT_LISTEN}; port 0 lets the system choose)",
    )
    made.add_argument("--workers", help="launch only these workers here, by name, with commas between")
    made.add_argument(
        "--grace", type=_grace, default=10.0, help="most time for calls in flight at the end (default: 10s)"
    )
    made.set_defaults(run=run)


def _grace(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Launch, and stay until told to leave; returns the supervisor's exit status."""
    if arguments.listen:
        target_of(arguments.listen)  # a wrong address is told before the models are read
    plan = compile_file(arguments.file, LAYERS).plan(arguments.placement)
    chosen = arguments.workers.split(",") if arguments.workers else [worker.name for worker in plan.workers]
    # In the mesh's own folder nobody else may look: sockets there have no other lock.
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        launches = plan_launches(
            plan,
            [plan.worker(name) for name in chosen],
            Path(folder),
            listen=arguments.listen,
            file_folder=arguments.file.resolve().parent,
            grace_s=arguments.grace,
        )
        return asyncio.run(_supervise(plan, launches, arguments.grace))


@dataclass(frozen=True, slots=True)
class _Started:
    """One process to start."""

    process: Process
    ready_file: Path


def plan_launches(
    plan: Plan, chosen: Sequence[Worker], folder: Path, *, listen: str | None, file_folder: Path, grace_s: float
) -> list[_Started]:
    """Write a launch file for each process, and say in which order to start them: the gateway last.

    Raises:
        PlacementError: Addresses do not go together.
    """
    addresses = {worker.name: _addresses(worker, folder) for worker in plan.workers}
    gateway = plan.gateway
    front = listen or gateway.address or DEFAULT_LISTEN
    started: list[_Started] = []
    others = tuple(
        _process_name(worker, replica)
        for worker in chosen
        for replica in range(worker.replicas)
        if worker.name != gateway.name
    )
    for worker in sorted(chosen, key=lambda worker: worker.name == gateway.name):
        for replica, own in enumerate(addresses[worker.name]):
            name = _process_name(worker, replica)
            launch = Launch(
                plan=plan,
                worker=worker.name,
                listen=(_following(front, replica) if worker.name == gateway.name else own,),
                dial=addresses,
                folder=str(file_folder),
                ready_file=str(folder / f"{name}.ready"),
                grace_s=grace_s,
            )
            path = folder / f"{name}.json"
            launch.write(path)
            argv = (sys.executable, "-m", "mesh.cli", "worker", str(path))
            after = others if worker.name == gateway.name else ()
            started.append(_Started(Process(name=name, after=after, argv=argv), folder / f"{name}.ready"))
    return started


def _process_name(worker: Worker, replica: int) -> str:
    return worker.name if worker.replicas == 1 else f"{worker.name}-{replica}"


def _addresses(worker: Worker, folder: Path) -> tuple[str, ...]:
    """An address a replica: the file's and the ports that follow it, else unix sockets."""
    if worker.address:
        return tuple(_following(worker.address, replica) for replica in range(worker.replicas))
    return tuple(f"unix:{folder}/{worker.name}-{replica}.sock" for replica in range(worker.replicas))


def _following(address: str, replica: int) -> str:
    matched = re.fullmatch(r"(grpc://.+:)(\d+)", address)
    if matched is None or replica == 0:
        if replica:
            raise PlacementError(f"{address} cannot be shared by replicas")
        return address
    return f"{matched[1]}{int(matched[2]) + replica if matched[2] != '0' else 0}"


async def _supervise(plan: Plan, started: Sequence[_Started], grace_s: float) -> int:
    transports = grpc_transports()
    limits = limits_of(plan.graph)
    ready_files = {one.process.name: one.ready_file for one in started}
    gateway = started[-1].process.name

    async def probe(name: str) -> bool:
        """Whether a worker has written where it listens, and says there that it serves."""
        try:
            addresses = ready_files[name].read_text().splitlines()
        except FileNotFoundError:
            return False
        link = await transports[addresses[0].partition(":")[0]].dial(addresses[0], limits)
        try:
            return await link.ready()
        finally:
            await link.close()

    def announce(told: Announce) -> None:
        print(f"mesh: {told}", file=sys.stderr, flush=True)
        if told.name == gateway and told.state is State.READY:
            where = ready_files[gateway].read_text().strip()
            print(f"mesh: {plan.graph.name} ({plan.placement}) answers at {where}", file=sys.stderr, flush=True)

    policy = Policy(drain_grace_s=grace_s + 2.0)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines name sockets and tell nobody anything
    return await supervise([one.process for one in started], probe, policy=policy, on_announcement=announce)
