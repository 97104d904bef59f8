"""What is started for a plan, in which order, and how each is asked whether it is ready.

The store of jobs is first, where the mesh has one of its own, and ends last: everybody else needs it. Then the workers
of the nodes, then those who work on jobs, then the gateway.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mesh.cli.addresses import addresses_of, check_free, socket_address
from mesh.errors import PlacementError, SetupError
from mesh.jobs.server.embedded import OwnStore, locked, prepare, worth_telling
from mesh.jobs.server.room import StoreRoom
from mesh.jobs.settings import callback_settings, check_installed, store_settings
from mesh.runtime.launch import JOBS, Launch, grpc_transports
from mesh.runtime.worker import limits_of
from mesh.supervisor import Announce, Policy, Process, State, print_line, supervise
from mesh.topology import Plan, Worker
from mesh.topology.jobs import JOB_WORKER, STORE

__all__ = ["DEFAULT_LISTEN", "Chosen", "Launched", "choose", "hold_data", "plan_launches", "run_launched"]

DEFAULT_LISTEN = "grpc://127.0.0.1:8001"
"""Where the gateway listens unless told otherwise: on loopback, at the port that inference servers commonly use."""
_QUIET = frozenset({State.WAITING, State.STARTING, State.READY, State.DRAINING, State.STOPPED})
"""What is not told of where only what goes wrong is; a process that cannot be set up says so itself."""
_GIVING_BACK_S = 6.0
"""How long workers on jobs may take, once their time to finish is over, to give back what is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What of a plan is launched here."""

    workers: tuple[Worker, ...]
    """In the plan's order."""
    jobs: int = 0
    """Workers on jobs."""


def choose(plan: Plan, names: str | None) -> Chosen:
    """What is launched here: everything, or what is named, with commas between; `jobs` for the workers on jobs.

    Raises:
        PlacementError: Something is named that the plan does not have.
    """
    job_workers = plan.graph.jobs.workers if plan.graph.jobs else 0
    if names is None:
        return Chosen(workers=plan.workers, jobs=job_workers)
    wanted = {name.strip() for name in names.split(",")}
    if JOB_WORKER not in wanted or not job_workers:
        job_workers = 0
    else:
        wanted.remove(JOB_WORKER)
    wanted = {plan.worker(name).name for name in wanted}
    return Chosen(workers=tuple(worker for worker in plan.workers if worker.name in wanted), jobs=job_workers)


def hold_data(plan: Plan, chosen: Chosen, data: Path | None, lifetime: ExitStack) -> tuple[Plan, OwnStore | None]:
    """Look at what jobs need, and have the data folder where the store is the mesh's own.

    Args:
        plan: As the file has it.
        chosen: What of it is launched here.
        data: The data folder; the file's where None.
        lifetime: Gives the folder up again.

    Returns:
        The plan, with the store's address and our credentials in it; and the server to start, where one is.

    Raises:
        SetupError: Something that jobs need is not installed, not there or not right; or there are no jobs, and a data
            folder was given.
        PlacementError: Another mesh has the data folder.
    """
    jobs = plan.graph.jobs
    if jobs is None:
        if data is not None:
            raise SetupError(f"--data is for jobs, and {plan.graph.file} has none")
        return plan, None
    if data is not None:
        jobs = replace(jobs, folder=str(data.resolve()))
    own: OwnStore | None = None
    if chosen.jobs or plan.gateway in chosen.workers:
        check_installed(jobs)
        callback_settings(jobs)
        if jobs.embedded:
            lifetime.enter_context(locked(Path(jobs.folder)))
            own = prepare(jobs, plan.graph.name)
            jobs = replace(jobs, servers=(own.url,), credentials=str(own.credentials))
        store_settings(replace(plan.graph, jobs=jobs))  # what cannot be read is told before anything starts
    return replace(plan, graph=replace(plan.graph, jobs=jobs)), own


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """One process to start."""

    process: Process
    worker: str
    """Whose replica it is."""
    listen: str = ""
    ready_file: Path | None = None
    """Where it says that it listens, and at which address; None for the store."""


def plan_launches(
    plan: Plan,
    chosen: Chosen,
    folder: Path,
    *,
    listen: str | None,
    file_folder: Path,
    grace_s: float,
    engine: str,
    own: OwnStore | None = None,
) -> list[Launched]:
    """Write a launch file for each process, and say in which order to start them.

    Args:
        plan: The whole plan.
        chosen: What of it is launched here.
        folder: Of this mesh alone.
        listen: The gateway's address; the plan's where None.
        file_folder: Where the topology file lies.
        grace_s: Most seconds for what is under way when told to stop.
        engine: What speaks gRPC.
        own: The store to start, where the mesh has one of its own.

    Raises:
        PlacementError: Addresses do not go together.
    """
    gateway = plan.gateway
    if listen and gateway not in chosen.workers:
        raise PlacementError(f"--listen is for the gateway {gateway.name}, which is not launched here")
    addresses = addresses_of(
        plan, chosen.workers, folder, listen or gateway.address or DEFAULT_LISTEN, jobs=chosen.jobs > 0
    )
    inner = _inner_door(plan, folder) if gateway in chosen.workers else None
    dial = {**addresses, gateway.name: (inner,)} if inner else addresses
    launching = _Launching(
        Launch(
            plan=plan,
            worker=gateway.name,
            listen=(),
            dial=dial,
            folder=str(file_folder),
            ready_file="",
            grace_s=grace_s,
            engine=engine,
        ),
        folder,
    )
    if own is not None:
        launching.add(STORE, STORE, own.argv)
    for worker in chosen.workers:
        if worker is not gateway:
            for replica, address in enumerate(addresses[worker.name]):
                name = worker.name if worker.replicas == 1 else f"{worker.name}-{replica}"
                launching.launch(name, worker.name, (address,))
    job_addresses = tuple(socket_address(folder / f"{JOB_WORKER}-{index}.sock") for index in range(chosen.jobs))
    before = tuple(one.process.name for one in launching.launched)
    for index, address in enumerate(job_addresses):
        launching.launch(f"{JOB_WORKER}-{index}", JOB_WORKER, (address,), after=before, role=JOBS)
    if gateway in chosen.workers:
        (front,) = addresses[gateway.name]
        launching.launch(
            gateway.name,
            gateway.name,
            (front, inner) if inner else (front,),
            after=tuple(one.process.name for one in launching.launched),
            dial={**dial, JOB_WORKER: job_addresses} if job_addresses else dial,
        )
    return launching.launched


class _Launching:
    def __init__(self, template: Launch, folder: Path) -> None:
        self._template = template
        self._folder = folder
        self.launched: list[Launched] = []

    def launch(
        self,
        name: str,
        worker: str,
        listen: tuple[str, ...],
        *,
        after: tuple[str, ...] = (),
        role: str = "",
        dial: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        """A process of our own, which is told what it is by a file."""
        ready_file = self._folder / f"{name}.ready"
        launch = replace(self._template, listen=listen, ready_file=str(ready_file), dial=dial or self._template.dial)
        launch = replace(launch, role=role, called=name) if role else replace(launch, worker=worker)
        path = self._folder / f"{name}.json"
        launch.write(path)
        self.add(name, worker, (sys.executable, "-m", "mesh.cli", "worker", str(path)), after, listen[0], ready_file)

    def add(
        self,
        name: str,
        worker: str,
        argv: tuple[str, ...],
        after: tuple[str, ...] = (),
        listen: str = "",
        ready_file: Path | None = None,
    ) -> None:
        """Any process."""
        process = Process(name=name, after=after, argv=argv)
        self.launched.append(Launched(process=process, worker=worker, listen=listen, ready_file=ready_file))


def _inner_door(plan: Plan, folder: Path) -> str | None:
    """Where the gateway listens for workers that keep things in a cache node of its own; None where none does.

    Its other address may be one that the system chooses, or that this host does not reach.
    """
    graph, inside = plan.graph, set(plan.gateway.nodes)
    for node in graph.nodes:
        if node.cache and node.name not in inside and inside.intersection(graph.cache(node.cache).nodes):
            return socket_address(folder / f"{plan.gateway.name}-inner.sock")
    return None


async def run_launched(
    plan: Plan,
    launched: Sequence[Launched],
    grace_s: float,
    own: OwnStore | None = None,
    *,
    until: asyncio.Event | None = None,
    quiet: bool = False,
) -> int:
    """Start what was planned, keep it alive until told to leave, and end it; returns the supervisor's exit status.

    Args:
        plan: The whole plan.
        launched: What to start.
        grace_s: Most seconds for what is under way when told to stop.
        own: The store that is among it, where the mesh has one of its own.
        until: Tells it to leave, once set.
        quiet: Tell only of what goes wrong.

    Raises:
        PlacementError: An address is in use.
    """
    check_free(one.listen for one in launched)
    transports = grpc_transports()
    limits = limits_of(plan.graph)
    ready_files = {one.process.name: one.ready_file for one in launched}
    fronts = {one.process.name for one in launched if one.worker == plan.gateway.name}
    room = None if own is None else StoreRoom(own.credentials.parent)

    async def probe(name: str) -> bool:
        """Whether a worker has written where it listens, and says there that it serves."""
        file = ready_files[name]
        if file is None:
            return own is not None and room is not None and not room.to_be_restarted() and await own.answers()
        try:
            addresses = file.read_text().splitlines()
        except FileNotFoundError:
            return False
        link = await transports[addresses[0].partition(":")[0]].dial(addresses[0], limits)
        try:
            return await link.ready()
        finally:
            await link.close()

    def announce(told: Announce) -> None:
        # What the mesh as a whole does stands there with its name already.
        if quiet and told.state in _QUIET:
            return
        print(f"mesh: {told}" if told.name else told, file=sys.stderr, flush=True)
        file = ready_files.get(told.name)
        if told.state is State.READY and told.name in fronts and file is not None:
            where = file.read_text().splitlines()[0]
            print(f"mesh: {plan.graph.name} ({plan.placement}) answers at {where}", file=sys.stderr, flush=True)

    def pass_on(name: str, line: str) -> None:
        if name == STORE and room is not None:
            room.heard(line)
        if (name != STORE or worth_telling(line)) and not (quiet and line.startswith("INFO ")):
            print_line(name, line)

    giving_back_s = _GIVING_BACK_S if any(one.worker == JOB_WORKER for one in launched) else 0.0
    policy = Policy(drain_grace_s=grace_s + 2.0 + giving_back_s)
    return await supervise(
        [one.process for one in launched],
        probe,
        policy=policy,
        on_announcement=announce,
        on_line=pass_on,
        until=until,
    )
