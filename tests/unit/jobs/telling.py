"""A store of jobs that says what a test gives it, and a gateway that serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from mesh.errors import NotFound
from mesh.hosts import AllowedHosts
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.records import RUNS, Job, JobState, Lane, Page, Progress, Work
from mesh.jobs.service import JobService
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.submission import Submissions
from mesh.signature import TensorSpec
from mesh.tensors import Tensors
from mesh.testing import ScriptedHandler
from mesh.transports import DEFAULT_ENGINE, Endpoint, GrpcTransport, Limits
from mesh.transports.contract import GRAPH, Description

__all__ = ["INPUTS", "SPECS", "TellingStore", "gateway", "job_of", "promptly", "service_of"]

SPECS = {"x": TensorSpec("FP32", ("rows", 2))}
INPUTS = Tensors({"x": np.ones((3, 2), np.float32)})
_WITHIN_S = 30.0


def job_of(id: str = "a", state: JobState = JobState.QUEUED, **others: Any) -> Job:  # noqa: A002
    """A job of the graph `digits`."""
    given: dict[str, Any] = {"graph": "digits", "lane": Lane.NORMAL, "submit_time": 1_800_000_000.0, **others}
    return Job(id=id, state=state, **given)


class TellingStore(JobStore):
    """A store whose jobs are what the test put into it."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.calls: list[tuple[Any, ...]] = []
        """What was asked, in its order."""
        self.trouble: BaseException | None = None
        """What everything raises, where there is something."""
        self.stuck = False
        """Whether nothing is ever answered."""
        self.events: asyncio.Queue[Job | Progress | BaseException] = asyncio.Queue(64)
        """What whoever follows is told next; it is over with a job that is."""
        self.following = 0
        """How many do."""
        self.changed = asyncio.Event()
        """Set whenever somebody begins or stops to follow."""
        self.next_token = ""

    async def _asked(self, *call: Any) -> None:
        self.calls.append(call)
        if self.stuck:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble

    def _job(self, id: str) -> Job:  # noqa: A002
        if id not in self.jobs:
            raise NotFound(f"no job is called {id!r} here")
        return self.jobs[id]

    async def submit(self, work: Work, *, key: str = "") -> tuple[Job, bool]:
        """See `JobStore`."""
        await self._asked("submit", work, key)
        rows = 0 if work.inputs is None else work.inputs.rows
        job = job_of(f"job-{len(self.jobs)}", lane=work.lane, rows=rows, request_id=work.request_id)
        self.jobs[job.id] = job
        return job, bool(key)

    async def get(self, id: str, *, outputs: bool = True) -> Job:  # noqa: A002
        """See `JobStore`."""
        await self._asked("get", id, outputs)
        return self._job(id)

    async def list(
        self, states: Collection[JobState] = (), size: int = 100, token: str = "", lanes: Collection[Lane] = RUNS
    ) -> Page:
        """See `JobStore`."""
        await self._asked("list", frozenset(states), size, token, frozenset(lanes))
        found = [job for job in self.jobs.values() if not states or job.state in states]
        return Page(tuple(found[:size]), self.next_token)

    async def cancel(self, id: str) -> Job:  # noqa: A002
        """See `JobStore`."""
        await self._asked("cancel", id)
        return self._job(id)

    async def replay(self, id: str) -> Job:  # noqa: A002
        """See `JobStore`."""
        await self._asked("replay", id)
        return job_of("again", replay_of=self._job(id).id)

    async def follow(self, id: str) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        """See `JobStore`."""
        await self._asked("follow", id)
        self.following += 1
        self.changed.set()
        try:
            yield self._job(id)
            while True:
                event = await self.events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Job) and event.over:
                    return
        finally:
            self.following -= 1
            self.changed.set()

    async def until_following(self, count: int) -> None:
        """Wait until so many follow."""
        async with promptly():
            while self.following != count:
                self.changed.clear()
                await self.changed.wait()


def service_of(store: JobStore, *hosts: str, **others: Any) -> JobService:
    """The service of jobs for the graph `digits`."""
    callbacks = CallbackSettings(hosts=AllowedHosts(hosts))
    submissions = Submissions("digits", SPECS, limits=Limits(), callbacks=callbacks)
    given: dict[str, Any] = {"wall": lambda: 1_800_000_000.0, **others}
    return JobService(store, submissions, **given)


@asynccontextmanager
async def gateway(
    service: JobService | None, address: str = "grpc://127.0.0.1:0", engine: str = DEFAULT_ENGINE
) -> AsyncGenerator[str]:
    """A gateway of the graph `digits`, which nobody calls, with a service of jobs; its address."""
    told = Description(graph="digits", digest="d", inputs=SPECS, outputs=SPECS, nodes=[])
    endpoint = Endpoint(kind=GRAPH, name="digits", handler=ScriptedHandler(), description=told, front=True)
    services = [] if service is None else [service]
    listener = await GrpcTransport(engine).listen(address, [endpoint], Limits(), services=services)
    try:
        yield listener.address
    finally:
        await listener.drain(0)


def promptly() -> asyncio.Timeout:
    """A bound for what has to happen, far above what it takes."""
    return asyncio.timeout(_WITHIN_S)
