"""`mesh up FILE`: check a topology, then launch its workers and keep them alive.

The first SIGINT or SIGTERM drains: the gateway first, so that nothing accepted is lost. The second ends everything at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.cli.addresses import addresses_of, check_free, socket_address
from mesh.cli.terminal import duration
from mesh.errors import PlacementError
from mesh.layers import LAYERS
from mesh.runtime.launch import Launch, grpc_transports
from mesh.runtime.worker import limits_of
from mesh.supervisor import Announce, Policy, Process, State, supervise
from mesh.topology import Plan, Worker, compile_file
from mesh.transports import ENGINES
from mesh.transports.grpc import target_of

__all__ = ["add"]

DEFAULT_LISTEN = "grpc://127.0.0.1:8001"
"""Where the gateway listens unless told otherwise: on loopback, at the port that inference servers commonly use."""
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
    made.add_argument("--workers", metavar="NAMES", help="launch only these workers here, by name, with commas between")
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
    # In the mesh's own folder nobody else may look: sockets there have no other lock.
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        launches = plan_launches(
            plan,
            _chosen(plan, arguments.workers),
            Path(folder),
            listen=arguments.listen,
            file_folder=arguments.file.resolve().parent,
            grace_s=arguments.grace,
            engine=arguments.engine or plan.graph.engine,
        )
        check_free(launch.listen for launch in launches)
        return asyncio.run(_supervise(plan, launches, arguments.grace))


def _chosen(plan: Plan, names: str | None) -> list[Worker]:
    """The workers to launch here, in the plan's order."""
    if names is None:
        return list(plan.workers)
    wanted = {plan.worker(name.strip()).name for name in names.split(",")}
    return [worker for worker in plan.workers if worker.name in wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """One process to start."""

    process: Process
    worker: str
    """Whose replica it is."""
    listen: str
    ready_file: Path
    """Where it says that it listens, and at which address."""


def plan_launches(
    plan: Plan,
    chosen: Sequence[Worker],
    folder: Path,
    *,
    listen: str | None,
    file_folder: Path,
    grace_s: float,
    engine: str,
) -> list[Launched]:
    """Write a launch file for each process, and say in which order to start them: the gateway last.

    Raises:
        PlacementError: Addresses do not go together.
    """
    gateway = plan.gateway
    if listen and gateway not in chosen:
        raise PlacementError(f"--listen is for the gateway {gateway.name}, which is not launched here")
    addresses = addresses_of(plan, chosen, folder, listen or gateway.address or DEFAULT_LISTEN)
    inner = _inner_door(plan, folder) if gateway in chosen else None
    dial = {**addresses, gateway.name: (inner,)} if inner else addresses
    launched: list[Launched] = []
    for worker in sorted(chosen, key=lambda worker: worker is gateway):
        after = tuple(one.process.name for one in launched) if worker is gateway else ()
        for replica, address in enumerate(addresses[worker.name]):
            name = worker.name if worker.replicas == 1 else f"{worker.name}-{replica}"
            launch = Launch(
                plan=plan,
                worker=worker.name,
                listen=(address, inner) if inner and worker is gateway else (address,),
                dial=dial,
                folder=str(file_folder),
                ready_file=str(folder / f"{name}.ready"),
                grace_s=grace_s,
                engine=engine,
            )
            path = folder / f"{name}.json"
            launch.write(path)
            argv = (sys.executable, "-m", "mesh.cli", "worker", str(path))
            process = Process(name=name, after=after, argv=argv)
            ready_file = Path(launch.ready_file)
            launched.append(Launched(process=process, worker=worker.name, listen=address, ready_file=ready_file))
    return launched


def _inner_door(plan: Plan, folder: Path) -> str | None:
    """Where the gateway listens for workers that keep things in a cache node of its own; None where none does.

    Its other address may be one that the system chooses, or that this host does not reach.
    """
    graph, inside = plan.graph, set(plan.gateway.nodes)
    for node in graph.nodes:
        if node.cache and node.name not in inside and inside.intersection(graph.cache(node.cache).nodes):
            return socket_address(folder / f"{plan.gateway.name}-inner.sock")
    return None


async def _supervise(plan: Plan, launched: Sequence[Launched], grace_s: float) -> int:
    transports = grpc_transports()
    limits = limits_of(plan.graph)
    ready_files = {one.process.name: one.ready_file for one in launched}
    fronts = {one.process.name for one in launched if one.worker == plan.gateway.name}

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
        # What the mesh as a whole does stands there with its name already.
        print(f"mesh: {told}" if told.name else told, file=sys.stderr, flush=True)
        if told.state is State.READY and told.name in fronts:
            where = ready_files[told.name].read_text().splitlines()[0]
            print(f"mesh: {plan.graph.name} ({plan.placement}) answers at {where}", file=sys.stderr, flush=True)

    policy = Policy(drain_grace_s=grace_s + 2.0)
    return await supervise([one.process for one in launched], probe, policy=policy, on_announcement=announce)
