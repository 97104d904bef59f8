"""The service of jobs: what it asks of the store, what it tells of it, how its calls end; on every pair of engines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, RequestError, Unavailable
from mesh.jobs.answering import answer_within_s
from mesh.jobs.client import JobClient
from mesh.jobs.records import RUNS, Callback, JobState, Lane, Progress
from mesh.jobs.service import JobService
from mesh.tensors import Tensors
from mesh.transports import ENGINES
from mesh.transports.status import error_of_call
from mesh.v1 import job_service_pb2, job_service_pb2_grpc
from tests.unit.jobs.telling import INPUTS, TellingStore, gateway, job_of, promptly, service_of

NO_STATE = job_service_pb2.JOB_STATE_UNSPECIFIED
DONE = job_of("a", JobState.DONE, attempt_count=1, outputs=Tensors({"label": np.array([7])}), end_time=1_800_000_001.0)


@asynccontextmanager
async def asking(
    store: TellingStore, *hosts: str, listening: str = "wire", dialling: str = "wire", **others: Any
) -> AsyncGenerator[JobClient]:
    async with (
        gateway(service_of(store, *hosts, **others), engine=listening) as address,
        JobClient(address, engine=dialling) as jobs,
    ):
        yield jobs


@asynccontextmanager
async def stub_of(service: JobService) -> AsyncGenerator[Any]:
    """The generated stub, as any client would use it."""
    async with (
        gateway(service) as address,
        grpc.aio.insecure_channel(address.removeprefix("grpc://")) as channel,
    ):
        yield job_service_pb2_grpc.JobServiceStub(channel)


@pytest.mark.parametrize("listening", ENGINES)
@pytest.mark.parametrize("dialling", ENGINES)
async def test_a_job_is_submitted_looked_at_listed_watched_cancelled_and_replayed(
    listening: str, dialling: str
) -> None:
    store = TellingStore()
    async with asking(store, "hook.example", listening=listening, dialling=dialling) as jobs:
        job, existed = await jobs.submit(
            INPUTS,
            parameters={"threshold": 0.5},
            request_id="mine",
            report=True,
            key="k",
            priority=Lane.HIGH,
            timeout_s=2.5,
            callback=Callback(url="https://hook.example/x"),
        )
        ((_, work, key),) = store.calls
        assert (job.id, job.rows, job.lane, job.request_id, existed) == ("job-0", 3, Lane.HIGH, "mine", True)
        assert (work.inputs, work.parameters, work.report, key) == (INPUTS, {"threshold": 0.5}, True, "k")
        assert (work.deadline, work.callback) == (1_800_000_002.5, Callback(url="https://hook.example/x"))
        assert await jobs.get(job.id) == job
        store.jobs["a"] = DONE
        assert await jobs.get("a", outputs=False) == DONE
        assert [call[-1] for call in store.calls if call[0] == "get"] == [True, False]
        assert (await jobs.list([JobState.DONE], size=5)).jobs == (DONE,)
        assert (await jobs.cancel(job.id)).id == job.id
        assert (await jobs.replay("a")).replay_of == "a"
        async with promptly():
            running = job_of("job-0", JobState.RUNNING, attempt_count=1)
            branches = [Progress(1, "left", Tensors({"y": [1.5]})), Progress(1, "right", NodeFailed("x", node="right"))]
            over = job_of("job-0", JobState.DONE, outputs=DONE.outputs)
            for event in (running, *branches, over):
                store.events.put_nowait(event)
            assert [event async for event in jobs.watch("job-0")] == [job, running, *branches, over]
            await store.until_following(0)


ERRORS = [
    NotFound("no job is called 'a' here"),
    InvalidInput("it did not fail", tensor="x", row=1),
    Overloaded("as many jobs wait as may", retry_after_s=1.5),
    Unavailable("the store cannot be reached", retry_after_s=0.25),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
async def test_what_the_store_raises_comes_to_the_caller_equal_and_with_its_status(error: RequestError) -> None:
    store = TellingStore()
    store.trouble = error
    async with asking(store) as jobs:
        asked = [jobs.get("a"), jobs.list(), jobs.cancel("a"), jobs.replay("a"), jobs.wait("a")]
        for call in asked:
            with pytest.raises(type(error)) as caught:
                await call
            assert caught.value == error
        with pytest.raises(type(error)) as caught:
            await jobs.submit(INPUTS, request_id="mine")
        assert (caught.value.text, caught.value.request_id) == (error.text, "mine")


async def test_a_fault_of_the_service_is_in_the_log_and_not_on_the_wire(caplog: pytest.LogCaptureFixture) -> None:
    store = TellingStore()
    store.trouble = ValueError("/secret/path")
    async with asking(store) as jobs:
        for call in (jobs.get("a"), jobs.wait("a")):
            with pytest.raises(NodeFailed) as caught:
                await call
            assert "secret" not in str(caught.value)
    assert caplog.text.count("/secret/path") == 2


async def test_a_store_that_does_not_answer_makes_the_call_unavailable_and_not_hang() -> None:
    store = TellingStore()
    store.stuck = True
    async with promptly(), stub_of(service_of(store, answer_s=0.01)) as stub:
        for method, request in (
            (stub.GetJob, job_service_pb2.GetJobRequest(id="a")),
            (stub.CancelJob, job_service_pb2.CancelJobRequest(id="a")),
            (stub.ListJobs, job_service_pb2.ListJobsRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert error_of_call(caught.value) == Unavailable("the store of jobs did not answer in time")


@given(st.none() | st.floats(0.0, 1e6), st.floats(0.001, 1e3))
def test_the_store_has_less_time_than_the_caller_waits(remaining_s: float | None, most_s: float) -> None:
    within_s = answer_within_s(remaining_s, most_s)
    assert within_s <= most_s
    if remaining_s is None:
        assert within_s == most_s
    else:
        assert within_s < remaining_s or within_s == remaining_s == 0
        assert within_s >= min(remaining_s * 0.75, most_s)


# What is wrong with a request.


@pytest.mark.parametrize(
    ("method", "request_", "code", "told"),
    [
        ("GetJob", job_service_pb2.GetJobRequest(), "INVALID_ARGUMENT", "the job's id is missing"),
        ("CancelJob", job_service_pb2.CancelJobRequest(), "INVALID_ARGUMENT", "the job's id is missing"),
        ("GetJob", job_service_pb2.GetJobRequest(id="i" * 257), "NOT_FOUND", "no job is called 'iii"),
        ("ReplayJob", job_service_pb2.ReplayJobRequest(id="nobody"), "NOT_FOUND", "no job is called 'nobody' here"),
        ("ListJobs", job_service_pb2.ListJobsRequest(page_size=-1), "INVALID_ARGUMENT", "at least one job, and not -1"),
        ("ListJobs", job_service_pb2.ListJobsRequest(page_token="t" * 4097), "INVALID_ARGUMENT", "no page token"),
        (
            "ListJobs",
            job_service_pb2.ListJobsRequest(states=[NO_STATE]),
            "INVALID_ARGUMENT",
            "has the number 0",
        ),
        ("SubmitJob", job_service_pb2.SubmitJobRequest(), "INVALID_ARGUMENT", "'x' is missing; it takes FP32[rows, 2]"),
    ],
)
async def test_mistakes_are_told_by_their_status(method: str, request_: Any, code: str, told: str) -> None:
    store = TellingStore()
    async with stub_of(service_of(store)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, method)(request_)
    assert caught.value.code().name == code
    assert told in (caught.value.details() or "")
    assert not [call for call in store.calls if call[0] in ("submit", "list", "cancel", "replay")]


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (7, 7), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
async def test_pages_are_bounded(asked: int, given: int) -> None:
    store = TellingStore()
    store.next_token = "on"
    async with stub_of(service_of(store)) as stub:
        states = [job_service_pb2.JOB_STATE_QUEUED, job_service_pb2.JOB_STATE_CANCELLED]
        page = await stub.ListJobs(job_service_pb2.ListJobsRequest(page_size=asked, page_token="t", states=states))
    wanted = frozenset({JobState.QUEUED, JobState.CANCELLED})
    assert store.calls == [("list", wanted, given, "t", frozenset(RUNS))]
    assert page.next_page_token == "on"


@pytest.mark.parametrize("lane", [Lane.SHARD, Lane.BATCH])
async def test_batches_and_shards_are_no_jobs_for_callers(lane: Lane) -> None:
    store = TellingStore()
    store.jobs["a"] = job_of("a", JobState.RUNNING, lane=lane)
    async with asking(store) as jobs:
        for call in (jobs.get("a"), jobs.cancel("a"), jobs.replay("a"), jobs.wait("a")):
            with pytest.raises(NotFound, match="no job is called 'a' here"):
                await call
    assert {call[0] for call in store.calls} == {"get", "follow"}


# Who watches.


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_caller_that_leaves_frees_what_it_held(engine: str) -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    service = service_of(store)
    async with gateway(service, engine=engine) as address, JobClient(address, engine=engine) as jobs, promptly():
        async with aclosing(jobs.watch("a")) as events:
            assert await anext(events) == store.jobs["a"]
            assert (store.following, service.watching) == (1, 1)
        await store.until_following(0)
    assert service.watching == 0


async def test_as_many_watch_as_may_and_no_more() -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    async with asking(store, max_watchers=1) as jobs, promptly(), aclosing(jobs.watch("a")) as events:
        await anext(events)
        with pytest.raises(Overloaded, match="1 jobs are being watched, and no more") as caught:
            await jobs.wait("a")
        assert caught.value.retry_after_s > 0
        assert await jobs.get("a") == store.jobs["a"]


async def test_as_many_calls_are_answered_as_may_and_no_more() -> None:
    store = TellingStore()
    async with asking(store, max_calls=0) as jobs:
        with pytest.raises(Overloaded, match="0 calls about jobs are being answered, and no more"):
            await jobs.get("a")


async def test_a_store_that_goes_away_ends_the_watch_as_unavailable() -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    async with promptly(), stub_of(service_of(store)) as stub:
        call = stub.WatchJob(job_service_pb2.WatchJobRequest(id="a"))
        assert (await call.read()).job.id == "a"
        store.events.put_nowait(Unavailable("the store cannot be reached"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_gateway_that_leaves_sends_watchers_away() -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    service = service_of(store)
    async with promptly(), stub_of(service) as stub:
        call = stub.WatchJob(job_service_pb2.WatchJobRequest(id="a"))
        assert (await call.read()).job.id == "a"
        service.leave()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        found = error_of_call(caught.value)
        assert isinstance(found, Unavailable)
        assert found.text == "the gateway is leaving: watch again"
        await store.until_following(0)
