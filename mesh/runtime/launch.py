"""What one worker process is told: a file written by whoever launches it, and nothing else.

The plan is compiled once, before anything starts. Workers read the plan and not the topology file, so a worker that is
started again later runs what the others run, whatever became of the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from pydantic import TypeAdapter, ValidationError

from mesh.errors import SetupError
from mesh.runtime.worker import Transports, Worker
from mesh.topology.placement import Plan
from mesh.topology.resolve import importable_from
from mesh.transports import DEFAULT_ENGINE, GrpcTransport, Service

__all__ = ["JOBS", "Launch", "grpc_transports", "publish", "serve", "worker_of"]


JOBS = "jobs"
"""The role of a process that works on jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One worker process."""

    plan: Plan
    worker: str
    """Which of the plan's workers it is."""
    listen: tuple[str, ...]
    """Where it listens."""
    dial: dict[str, tuple[str, ...]]
    """Worker -> addresses of its replicas."""
    folder: str
    """Absolute path of the topology file's folder, from which `uses:` may import."""
    ready_file: str
    """Written once it listens: its addresses, one a line."""
    engine: str = DEFAULT_ENGINE
    """What speaks gRPC between the workers."""
    grace_s: float = 10.0
    """Most seconds for calls in flight when it is told to stop."""
    role: str = ""
    """`JOBS` for one that holds the gateway's share a second time, to work on jobs; empty for a worker of the plan."""
    called: str = ""
    """Its own name, where that is not the worker's."""

    def write(self, path: Path) -> None:
        """Save as JSON."""
        path.write_bytes(_LAUNCH.dump_json(self))

    @classmethod
    def read(cls, path: Path) -> Launch:
        """Read back what `write` saved.

        Raises:
            SetupError: There is no such file, or it is none that `write` made.
        """
        try:
            return _LAUNCH.validate_json(path.read_bytes())
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}") from None
        except ValidationError:
            raise SetupError(f"{path}: not a launch file") from None


_LAUNCH: TypeAdapter[Launch] = TypeAdapter(Launch)


def grpc_transports(engine: str = DEFAULT_ENGINE) -> Transports:
    """The transports between processes, by scheme, over an engine of `mesh.transports.ENGINES`."""
    transport = GrpcTransport(engine)
    return {"grpc": transport, "unix": transport}


async def serve(launch: Launch, stop: asyncio.Event, announce: Callable[[list[str]], object]) -> None:
    """Run a worker until `stop` is set, then drain it.

    Args:
        launch: What to run.
        stop: Set when it is time to go.
        announce: Told the worker's addresses once it listens and every node is loaded.

    Raises:
        SetupError: A node cannot be loaded, or an address cannot be bound.
    """
    async with worker_of(launch) as worker:
        announce(publish(launch, worker))
        await stop.wait()


def worker_of(launch: Launch, services: Sequence[Service] = ()) -> Worker:
    """The worker that a launch file describes, not entered; it answers for `services` as well."""
    importable_from(Path(launch.folder))
    return Worker(
        launch.plan,
        launch.worker,
        listen=_same_ports(launch),
        dial=launch.dial,
        transports=grpc_transports(launch.engine),
        services=services,
        called=launch.called,
        grace_s=launch.grace_s,
    )


def publish(launch: Launch, worker: Worker) -> list[str]:
    """Say that a worker listens, to whoever launched it; returns where."""
    addresses = [listener.address for listener in worker.listeners]
    _publish(Path(launch.ready_file), addresses)
    return addresses


def _same_ports(launch: Launch) -> tuple[str, ...]:
    """A worker that comes back listens where it did before, also where the operating system had chosen the port."""
    ready = Path(launch.ready_file)
    if ready.exists():
        before = tuple(ready.read_text().splitlines())
        if len(before) == len(launch.listen):
            return before
    return launch.listen


def _publish(path: Path, addresses: list[str]) -> None:
    # Renamed into place: whoever reads it sees all of it or nothing.
    with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write("\n".join(addresses))
    os.replace(file.name, path)
