"""What tests of the store begin with."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import nats
import numpy as np

from mesh.jobs.records import RUNS, Lane, Work
from mesh.jobs.store.job_store import Delivery, JobStore, Lease
from mesh.tensors import Tensors
from tests.harness.nats import Nats, settings_of

PATIENCE_S = 60.0
"""How long anything is waited for that comes at once."""


class Wall:
    """A time of day that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


def tensors(rows: int = 1, value: float = 0.0) -> Tensors:
    return Tensors({"x": np.full((rows, 4), value, np.float32)})


def large() -> Tensors:
    """More than is kept inline."""
    return Tensors({"x": np.arange(100_000, dtype=np.float32).reshape(-1, 4)})


def work(rows: int = 1, **changes: Any) -> Work:
    given: dict[str, Any] = {"inputs": tensors(rows), "request_id": "asked", **changes}
    return Work(**given)


@asynccontextmanager
async def opened(server: Nats, wall: Callable[[], float] = time.time, **changes: Any) -> AsyncGenerator[JobStore]:
    async with JobStore(settings_of(server, **changes), wall) as store:
        yield store


def again(store: JobStore, wall: Callable[[], float] = time.time) -> JobStore:
    """Another process's view of the same store."""
    return JobStore(store.settings, wall)


async def taken(store: JobStore, lanes: Sequence[Lane] = RUNS) -> Delivery:
    """The next delivery, when there is one."""
    (delivery,) = await store.take(lanes, 1, PATIENCE_S)
    return delivery


async def begun(store: JobStore, worker: str = "one", lanes: Sequence[Lane] = RUNS) -> Lease:
    """The next attempt; deliveries of which nothing is to be done are passed over."""
    while True:
        lease = await (await taken(store, lanes)).begin(worker)
        if lease is not None:
            return lease


async def ask(server: Nats, what: str, **body: Any) -> dict[str, Any]:
    """What the server itself says, asked behind the store's back."""
    client = await nats.connect(server.url)
    try:
        answer = await client.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=PATIENCE_S)
        return json.loads(answer.data)
    finally:
        await client.close()


async def put(server: Nats, subject: str, data: bytes) -> None:
    """A message, stored behind the store's back."""
    client = await nats.connect(server.url)
    try:
        await client.jetstream().publish(subject, data, timeout=PATIENCE_S)
    finally:
        await client.close()


async def raw_work(server: Nats, store: JobStore, lane: Lane, id: str) -> tuple[str, bytes]:  # noqa: A002
    """The subject of a job's work, and its bytes."""
    from mesh.jobs.store.subjects import Subjects

    subjects = Subjects(store.settings.graph)
    client = await nats.connect(server.url)
    try:
        subject = subjects.work_of(lane, id)
        found = await client.jetstream().get_last_msg(subjects.work, subject)
        assert found.data is not None
        return subject, found.data
    finally:
        await client.close()
