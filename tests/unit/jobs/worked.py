"""Job workers on a real store, over a graph whose nodes do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from mesh.context import Context
from mesh.errors import Unavailable
from mesh.jobs.records import Job, Progress, Work
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.store.settings import StoreSettings
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.carrying import WorkPolicy
from mesh.jobs.work.worker import JobWorker, WorkBounds
from mesh.tensors import Tensors
from tests.harness.nats import Nats, settings_of
from tests.unit.runtime.given import flow, topology

__all__ = ["BRANCHES", "ONE", "Call", "Nodes", "Shop", "bounds", "promptly", "shop", "until"]

PROMPTLY_S = 60.0
ONE = {"out": "Affine, inputs: {x: x}"}
BRANCHES = {"a": "Affine, inputs: {x: x}", "b": "Affine, inputs: {x: x}", "out": "Mean, inputs: [a, b]"}

T = TypeVar("T")


async def promptly(what: Awaitable[T]) -> T:
    """Bound the wait for something that has to happen; a slow machine has time for it."""
    async with asyncio.timeout(PROMPTLY_S):
        return await what


async def until(happened: Callable[[], object]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(PROMPTLY_S):
        while True:
            if happened():
                return
            await asyncio.sleep(0.01)


def bounds(**changes: Any) -> WorkBounds:
    """Of a worker that gives back at once what it has when it is told to stop, and hears of that soon."""
    return replace(WorkBounds(grace_s=0, poll_s=0.1), **changes)


class Call:
    """One call of a node, which waits for the test."""

    def __init__(self, request: Tensors) -> None:
        self.request = request
        self.answer: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
        self.cancelled = asyncio.Event()


class Nodes:
    """A handler whose calls come to the test."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        call = Call(request)
        self.calls.put_nowait(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            call.cancelled.set()
            raise

    async def called(self) -> Call:
        return await promptly(self.calls.get())


class Shop:
    """A store, workers and a node that is scripted."""

    def __init__(self, settings: StoreSettings, store: JobStore, run: GraphRun, nodes: dict[str, Nodes]) -> None:
        self.settings = settings
        self.store = store
        self.run = run
        self.nodes = nodes
        self._lifetime = AsyncExitStack()
        self._serving: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    async def worker(self, name: str, **how: Any) -> JobWorker:
        """Start a worker, with a connection of its own."""
        store = await self._lifetime.enter_async_context(JobStore(self.settings))
        policy = how.pop("policy", WorkPolicy(backoff=Backoff(first_s=0, most_s=0)))
        how.setdefault("bounds", bounds())
        worker = JobWorker(store, self.run, name=name, policy=policy, **how)
        stop = asyncio.Event()
        self._serving[name] = (stop, asyncio.ensure_future(worker.serve(stop)))
        return worker

    async def stop(self, name: str) -> None:
        """Tell a worker to stop, and wait until it has."""
        stop, serving = self._serving.pop(name)
        stop.set()
        await promptly(serving)

    async def vanish(self, name: str) -> None:
        """A worker is gone without a word, as one that was killed."""
        _, serving = self._serving.pop(name)
        serving.cancel()
        await promptly(asyncio.wait((serving,)))

    async def submit(self, inputs: Tensors, **more: Any) -> str:
        job, _ = await self.store.submit(Work(inputs=inputs, **more))
        return job.id

    async def over(self, id: str) -> Job:  # noqa: A002
        """A job once it is over."""
        return (await self.followed(id))[0]

    async def followed(self, id: str) -> tuple[Job, list[Progress]]:  # noqa: A002
        """A job once it is over, and what its branches gave meanwhile."""
        told: list[Progress] = []
        async with asyncio.timeout(PROMPTLY_S), aclosing(self.store.follow(id)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    told.append(event)
                elif event.over:
                    return event, told
        raise AssertionError("it was followed to its end, and is not over")

    async def over_at_last(self, id: str) -> Job:  # noqa: A002
        """The same, where the store may not answer at first."""
        return await self._at_last(lambda: self.over(id))

    async def submit_at_last(self, inputs: Tensors) -> str:
        """Submit it, where the store may not answer at first."""
        return await self._at_last(lambda: self.submit(inputs))

    async def _at_last(self, ask: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(PROMPTLY_S):
            while True:
                with suppress(Unavailable):
                    return await ask()

    async def close(self) -> None:
        for name in list(self._serving):
            await self.vanish(name)
        await self._lifetime.aclose()


@asynccontextmanager
async def shop(
    server: Nats, nodes: dict[str, str] | None = None, scripted: str = "", **settings: Any
) -> AsyncGenerator[Shop]:
    """Whatever it started is gone when it is left."""
    chosen = settings_of(server, **settings)
    scripts = {name: Nodes() for name in scripted.split()}
    nodes = nodes or ONE
    async with flow(nodes, handlers=scripts) as given, JobStore(chosen) as store:
        made = Shop(chosen, store, GraphRun(topology(nodes, "x: out.x").graph, given.executor), scripts)
        try:
            yield made
        finally:
            await made.close()
