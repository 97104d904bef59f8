"""(i) What jobs cost: storing one, beside a bare publish to the same server; a job beside the call; jobs a second."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nats
import numpy as np
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from mesh.jobs.client import JobClient
from mesh.jobs.records import Job, JobState
from mesh.tensors import Tensors
from mesh.transports import DEFAULT_ENGINE, ENGINES, Limits
from mesh.transports.codec import decode_tensors, encode_tensors
from mesh.transports.grpc import target_of
from mesh.v1 import graph_service_pb2, graph_service_pb2_grpc
from tests.harness.nats import Nats, nats_server
from tests.harness.processes import MeshUp

__all__ = ["run"]

TOPOLOGY = Path(__file__).parent / "soak" / "soak.yaml"
NUMBER, ANSWER = 27, 111
INPUTS = Tensors({"n": np.array([NUMBER]), "ms": np.array([0])})
IN_FLIGHT = {1: 150, 64: 1200, 256: 2000}
"""Submissions at once: how many a round."""
ROUNDS = 3
PAIRS = 200
"""Jobs and calls, in turn, of the overhead."""
WHOLE = 2000
"""Jobs of a round of the whole."""
FETCHED = 16
"""Messages that the bare queue takes at once: as many as a worker of the topology works on."""

Sample = tuple[float, list[float]]
"""Operations a second, and how long each took, in seconds."""


async def run() -> dict[str, Any]:
    """Submissions a second and their waits; milliseconds of a job over a call; whole jobs a second."""
    with nats_server() as server:
        numbers = itertools.count()
        async with gateway(server, "--workers", "gateway") as (jobs, _), bare_queue(server) as publish:

            async def keyed() -> object:
                return await jobs.submit(INPUTS, key=f"bench-{next(numbers)}")

            async def unkeyed() -> object:
                return await jobs.submit(INPUTS)

            submit = {
                str(in_flight): await sides(
                    {"unkeyed": unkeyed, "keyed": keyed, "bare": publish}, count=count, in_flight=in_flight
                )
                for in_flight, count in IN_FLIGHT.items()
            }
        server.forget()
        server.start()
        async with gateway(server) as (jobs, address):
            overhead, whole = await beside_a_call(jobs, address), await all_of_it(jobs)
        whole["bare"] = round(await bare_whole(server), 1)
    return {
        "targets": {"submit_per_s": 1000, "overhead_p50_ms": 10},
        "submit": submit,
        "overhead": overhead,
        "whole": whole,
    }


@asynccontextmanager
async def gateway(server: Nats, *arguments: str) -> AsyncGenerator[tuple[JobClient, str]]:
    """A mesh on a server that is there already, in processes of its own."""
    # Short, because a socket's path may not be long.
    with TemporaryDirectory(prefix="jobs-", dir="/tmp") as folder:
        file = Path(folder) / "soak.yaml"
        file.write_text(TOPOLOGY.read_text().replace("jobs:\n", f"jobs:\n  store: ['{server.url}']\n"))
        mesh = MeshUp(str(file), "--data", f"{folder}/data", *arguments, folder=Path(folder))
        try:
            address = await asyncio.to_thread(mesh.ready)
            async with JobClient(address) as client:
                yield client, address
        finally:
            await asyncio.to_thread(mesh.close)


# Submissions.


async def sides(ways: dict[str, Callable[[], Awaitable[object]]], *, count: int, in_flight: int) -> dict[str, Any]:
    """The same number of operations in each way, in turn; the first round warms up."""
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, operation in ways.items():
            samples[name].append(await timed(operation, count, in_flight))
    return {name: _told(rounds[1:]) for name, rounds in samples.items()}


async def timed(operation: Callable[[], Awaitable[object]], count: int, in_flight: int) -> Sample:
    """Do something so often, so many at once."""
    waiting, waits = iter(range(count)), list[float]()

    async def caller() -> None:
        for _ in waiting:
            began = time.perf_counter()
            await operation()
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return count / (time.perf_counter() - began), waits


def _told(rounds: list[Sample]) -> dict[str, float]:
    waits = sorted(wait for _, waits in rounds for wait in waits)
    return {"per_s": round(statistics.median(rate for rate, _ in rounds), 1), **_percentiles(waits)}


def _percentiles(waits: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(waits)
    return {f"p{share}_ms": round(ordered[len(ordered) * share // 100] * 1e3, 2) for share in (50, 99)}


@asynccontextmanager
async def bare_queue(server: Nats) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    """The least that is a durable queue: nats-py's publish into a stream of the same kind, of about as many bytes."""
    client = await nats.connect(server.url)
    try:
        stream: Any = client.jetstream(timeout=60.0)
        await stream.add_stream(
            StreamConfig(
                name="bare",
                subjects=["bare.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                max_msgs_per_subject=1,
            )
        )
        numbers, body = itertools.count(), bytes(256)

        async def publish() -> object:
            return await stream.publish(f"bare.{next(numbers)}", body)

        yield publish
    finally:
        await client.close()


# A job beside a call.


async def beside_a_call(jobs: JobClient, address: str) -> dict[str, Any]:
    """One at a time: a job from its submission until its answer is here, and the same asked plainly of one gateway."""
    channel = ENGINES[DEFAULT_ENGINE]().channel(target_of(address), Limits())
    stub: Any = graph_service_pb2_grpc.GraphServiceStub(channel)
    request = graph_service_pb2.RunRequest(inputs=encode_tensors(INPUTS))
    calls: list[float] = []
    stored: list[float] = []
    whole: list[float] = []
    for _ in range(PAIRS):
        began = time.perf_counter()
        answer = decode_tensors((await stub.Run(request, timeout=60.0)).outputs)
        calls.append(time.perf_counter() - began)
        assert answer["steps"].tolist() == [ANSWER]
        began = time.perf_counter()
        job, _ = await jobs.submit(INPUTS)
        stored.append(time.perf_counter() - began)
        _answered(await jobs.wait(job.id))
        whole.append(time.perf_counter() - began)
    await channel.close()
    calls, stored, whole = (times[PAIRS // 10 :] for times in (calls, stored, whole))
    over = [job - call for job, call in zip(whole, calls, strict=True)]
    sides = {"call": calls, "submission": stored, "job": whole, "overhead": over}
    return {name: _percentiles(times) for name, times in sides.items()}


def _answered(job: Job) -> None:
    assert job.state is JobState.DONE, job
    assert job.outputs is not None
    assert job.outputs["steps"].tolist() == [ANSWER]


async def all_of_it(jobs: JobClient) -> dict[str, Any]:
    """Jobs a second from the first submission to the last end, 256 submitted at once."""
    rates: list[float] = []
    for _ in range(ROUNDS):
        names: list[str] = []

        async def submit(names: list[str] = names) -> None:
            job, _ = await jobs.submit(INPUTS)
            names.append(job.id)

        began = time.perf_counter()
        await timed(submit, WHOLE, 256)
        # Those that came last are among the last that end; the others are looked at when they all have.
        await asyncio.gather(*map(jobs.wait, names[-128:]))
        while (await jobs.list((JobState.QUEUED, JobState.RUNNING), size=1)).jobs:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        rates.append(WHOLE / (time.perf_counter() - began))
        left = iter(names)

        async def look(left: Iterator[str] = left) -> None:
            _answered(await jobs.get(next(left)))

        await timed(look, WHOLE, 64)
    return {"jobs": WHOLE, "per_s": round(statistics.median(rates), 1)}


async def bare_whole(server: Nats) -> float:
    """The same number of messages through a bare queue: published, fetched, and taken off it for good."""
    async with bare_queue(server) as publish:
        client = await nats.connect(server.url)
        try:
            stream: Any = client.jetstream(timeout=60.0)
            pulled = await stream.pull_subscribe("bare.*", "bare", config=ConsumerConfig(max_ack_pending=WHOLE))
            began = time.perf_counter()
            publishing = asyncio.create_task(timed(publish, WHOLE, 256))
            taken = 0
            while taken < WHOLE:
                messages = await pulled.fetch(FETCHED, timeout=60.0)
                await asyncio.gather(*(message.ack_sync(timeout=60.0) for message in messages))
                taken += len(messages)
            await publishing
            return WHOLE / (time.perf_counter() - began)
        finally:
            await client.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run()), indent=2))
