"""The load of a soak: callers who submit, ask again where nobody answered, and look at what became of each job."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from bench.soak.ledger import Ledger, task_of
from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.jobs.client import JobClient
from mesh.jobs.records import Job

__all__ = ["Load", "clients"]

T = TypeVar("T")

PATIENCE_S = 180.0
"""How long anything may be unanswered before it counts as lost: far more than any restart takes."""
CALL_S = 10.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.05, 1.5
_PAGE = 1000
_CLIENTS = 2


@asynccontextmanager
async def clients(address: str) -> AsyncGenerator[list[JobClient]]:
    """Connections to a gateway that comes and goes."""
    made = [JobClient(address, call_s=CALL_S) for _ in range(_CLIENTS)]
    try:
        for client in made:
            await client.__aenter__()
        yield made
    finally:
        for client in made:
            await client.__aexit__()


class Load:
    """All callers of a soak.

    Args:
        ledger: What they write down.
        clients: How they reach the gateway.
        in_flight: Jobs at once that are submitted and whose end was not seen yet.
        seed: Where their keys and pauses come from.
    """

    def __init__(self, ledger: Ledger, clients: list[JobClient], *, in_flight: int, seed: int) -> None:
        self._ledger = ledger
        self._clients = clients
        self._in_flight = in_flight
        self._seed = seed
        self._chance = random.Random(seed)
        self._typical_s = 0.5
        self.unanswered = 0
        """Calls that were refused or not answered, and repeated."""

    async def run(self) -> None:
        """Every job, from its submission to its end."""
        await self._each(range(self._ledger.jobs), self._in_flight, self._job)

    async def look_again(self) -> None:
        """Look at every job that was acknowledged once more, and see that the store has no others."""
        numbers = [number for number, id in enumerate(self._ledger.ids) if id]  # noqa: A001
        await self._each(numbers, 64, self._look)
        await self._listed()

    async def _each(self, numbers: Iterable[int], at_once: int, work: Callable[[int], Awaitable[None]]) -> None:
        waiting = iter(numbers)

        async def caller() -> None:
            for number in waiting:
                try:
                    await work(number)
                except RequestError as error:
                    self._ledger.fault(f"refused: {type(error).__name__}", f"job {number}: {error}")

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(caller())

    async def _job(self, number: int) -> None:
        task, client = task_of(number), self._clients[number % len(self._clients)]
        key = f"soak-{self._seed}-{number}"
        job, _ = await self._answered(lambda: client.submit(task.inputs, key=key))
        self._ledger.acknowledge(number, job.id)
        began = time.monotonic()
        ended = await (self._watched(client, job.id) if task.watched else self._asked(client, job.id))
        self._typical_s += 0.05 * (min(time.monotonic() - began, 5.0) - self._typical_s)
        self._ledger.look(number, ended)
        if task.again:
            job, existed = await self._answered(lambda: client.submit(task.inputs, key=key))
            self._ledger.acknowledge(number, job.id)
            if not existed:
                self._ledger.fault("stored twice", f"job {number}, {job.id}")

    async def _watched(self, client: JobClient, id: str) -> Job:  # noqa: A002
        return await self._answered(lambda: client.wait(id, patience_s=CALL_S))

    async def _asked(self, client: JobClient, id: str) -> Job:  # noqa: A002
        # Asking costs the gateway as much as submitting: about as often as it takes for most to be over.
        pause_s = self._typical_s * (0.7 + 0.4 * self._chance.random())
        until = time.monotonic() + PATIENCE_S
        while True:
            await asyncio.sleep(max(_FIRST_PAUSE_S, pause_s))
            job = await self._answered(lambda: client.get(id))
            if job.over:
                return job
            if time.monotonic() > until:
                raise Unavailable(f"after {PATIENCE_S:g} s it is {job.state.value}: {job.attempts}")
            pause_s = min(max(_FIRST_PAUSE_S, self._typical_s / 3), _MOST_PAUSE_S)

    async def _look(self, number: int) -> None:
        client, id = self._clients[number % len(self._clients)], self._ledger.ids[number]  # noqa: A001
        self._ledger.look(number, await self._answered(lambda: client.get(id)))

    async def _listed(self) -> None:
        known, found, token = set(self._ledger.ids), set[str](), ""
        while True:
            now = token
            page = await self._answered(lambda: self._clients[0].list(size=_PAGE, token=now))  # noqa: B023 - at once
            found.update(job.id for job in page.jobs)
            if not (token := page.next_token):
                break
        for id in sorted(found - known):  # noqa: A001
            self._ledger.fault("a job that nobody submitted", id)
        for id in sorted(known - found - {""}):  # noqa: A001
            self._ledger.fault("a job that no list has", id)

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer.

        Raises:
            RequestError: An answer that asking again does not change; or none for `PATIENCE_S`.
        """
        until, pause_s = time.monotonic() + PATIENCE_S, _FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except (Unavailable, Overloaded) as error:
                self.unanswered += 1
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(pause_s * (0.5 + self._chance.random()))
                pause_s = min(max(2 * pause_s, error.retry_after_s), _MOST_PAUSE_S)
