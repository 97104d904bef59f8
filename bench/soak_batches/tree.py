"""The processes of a `mesh` that runs, as the system has them; to be killed by what they do."""

from __future__ import annotations

import os
import re
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mesh.errors import RequestError, SetupError
from mesh.jobs.records import JobState, Lane
from mesh.jobs.settings import store_settings
from mesh.jobs.store.job_store import JobStore
from mesh.runtime.launch import Launch

__all__ = ["Child", "Tree"]

_WORKER = re.compile(r"jobs-\d+")
_GONE_S = 60.0


@dataclass(slots=True)
class Child:
    """A process that a supervisor has started, held so that no other is meant once it is gone."""

    name: str
    pid: int
    pidfd: int
    launch: Path | None
    """The file that told it what to be; None for the store."""

    @classmethod
    def of(cls, pid: int, parent: int) -> Self | None:
        """A process, if it still is that parent's, and what one is told by its command line."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            mine = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent
        except (OSError, ValueError):
            arguments, mine = [], False
        launch = next((Path(one) for one in arguments if one.endswith(".json")), None)
        is_store = any(os.path.basename(one) == "nats-server" for one in arguments)
        name = "nats-server" if is_store else launch.stem if launch is not None else ""
        if mine and name:
            return cls(name, pid, pidfd, None if is_store else launch)
        os.close(pidfd)
        return None

    def kill(self) -> bool:
        """SIGKILL; whether it was still there."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def ends(self) -> bool:
        """Wait for its end; false where it is still there a minute later."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(_GONE_S * 1000))


class Tree:
    """A supervisor's processes at one moment; a context manager that lets go of them.

    Args:
        supervisor: Its process id.
    """

    def __init__(self, supervisor: int) -> None:
        self._supervisor = supervisor
        self.children: list[Child] = []

    def __enter__(self) -> Self:
        with suppress(OSError):
            for task in Path(f"/proc/{self._supervisor}/task").iterdir():
                for pid in (task / "children").read_text().split():
                    if (child := Child.of(int(pid), self._supervisor)) is not None:
                        self.children.append(child)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in self.children:
            os.close(child.pidfd)

    @property
    def workers(self) -> list[Child]:
        """Those that work on jobs, in their order."""
        return sorted((child for child in self.children if _WORKER.fullmatch(child.name)), key=lambda child: child.name)

    async def coordinator(self) -> Child | None:
        """The worker that looks after the batch, as the store has it; None where none does, or nobody can say."""
        workers = self.workers
        launch = next((child.launch for child in workers if child.launch is not None), None)
        if launch is None:
            return None
        with suppress(RequestError, SetupError):
            async with JobStore(store_settings(Launch.read(launch).plan.graph)) as store:
                page = await store.list((JobState.RUNNING,), 10, "", (Lane.BATCH,))
            names = {job.attempts[-1].worker for job in page.jobs if job.attempts}
            return next((child for child in workers if f"{child.name}/{child.pid}" in names), None)
        return None
