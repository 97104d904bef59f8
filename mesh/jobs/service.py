"""`JobService`: a gateway's jobs for callers in any language, over the store and nothing else.

Inputs are held against the graph before anything is stored, so a mistake is told at once, as `Run` tells it. No worker
has to run for any of this: what the store has is what is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar, cast

import grpc

from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, RequestError, Unavailable
from mesh.jobs.messages import decode_state, encode_event, encode_job
from mesh.jobs.records import RUNS, Job, Progress
from mesh.jobs.store import JobStore
from mesh.jobs.submission import Submissions
from mesh.transports.servicers import end_with
from mesh.v1 import job_service_pb2

__all__ = ["JobService", "answer_within_s"]

log = logging.getLogger("mesh.jobs")

Call = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

PAGE = 100
"""Jobs of a page whose size nobody said."""
MAX_PAGE = 1000
"""Most jobs of a page; whoever asks for more gets so many (https://google.aip.dev/158)."""
MAX_TOKEN = 4096
"""Characters of a page token."""
MAX_ID = 256
"""Characters of a job's id that anybody looks at."""
MAX_CALLS = 1024
"""Calls that are worked on at once; each holds one request."""
MAX_WATCHERS = 256
"""Watchers at once: each holds what one job gives, until its caller has read it."""
WATCH_S = 3600.0
"""How long one call may watch; whoever wants to see more asks again, and is told where the job stands."""
ANSWER_S = 30.0
"""How long the store may take for one call."""
KEPT_BACK_S = 0.25
"""What of a call's time is kept back for saying that the store did not answer."""
RETRY_AFTER_S = 0.05
"""The hint of a service that is full."""


class JobService:
    """Answers for the jobs of one graph.

    Args:
        store: Where they are.
        submissions: Reads what is to be run.
        wall: The time of day, in seconds since 1970-01-01 UTC.
        max_calls: Most calls at once.
        max_watchers: Most watchers at once.
        answer_s: How long the store may take for one call, in seconds; never longer than the call's own deadline.
    """

    name = "mesh.v1.JobService"
    """The full name of the gRPC service."""

    def __init__(
        self,
        store: JobStore,
        submissions: Submissions,
        *,
        wall: Callable[[], float] = time.time,
        max_calls: int = MAX_CALLS,
        max_watchers: int = MAX_WATCHERS,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._store = store
        self._submissions = submissions
        self._wall = wall
        self._calls = _Bound(max_calls, "calls about jobs are being answered")
        self._watchers = _Bound(max_watchers, "jobs are being watched")
        self._answer_s = answer_s
        self._leaving = asyncio.Event()

    @property
    def watching(self) -> int:
        """Watchers that are here now."""
        return self._watchers.taken

    def add(self, server: grpc.aio.Server) -> None:
        """Answer on a server."""
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, self._handlers()),))

    def leave(self) -> None:
        """Send watchers away: whoever watches asks again, and comes to whoever answers then."""
        self._leaving.set()

    def _handlers(self) -> dict[str, Any]:
        unary = {
            "SubmitJob": (self._submit, job_service_pb2.SubmitJobRequest),
            "GetJob": (self._get, job_service_pb2.GetJobRequest),
            "ListJobs": (self._list, job_service_pb2.ListJobsRequest),
            "CancelJob": (self._cancel, job_service_pb2.CancelJobRequest),
            "ReplayJob": (self._replay, job_service_pb2.ReplayJobRequest),
        }
        handlers: dict[str, Any] = {
            method: grpc.unary_unary_rpc_method_handler(
                self._unary(answer), request_deserializer=request.FromString, response_serializer=_serialize
            )
            for method, (answer, request) in unary.items()
        }
        handlers["WatchJob"] = grpc.unary_stream_rpc_method_handler(
            self._watch,
            request_deserializer=job_service_pb2.WatchJobRequest.FromString,
            response_serializer=_serialize,
        )
        return handlers

    # One answer each.

    async def _submit(self, request: job_service_pb2.SubmitJobRequest) -> job_service_pb2.SubmitJobResponse:
        request_id = request.request.options.request_id
        try:
            work = self._submissions.read(request, self._wall())
            request_id = work.request_id
            job, existed = await self._store.submit(work, key=request.idempotency_key)
        except RequestError as error:
            error.locate(node="", request_id=request_id)
            raise
        return job_service_pb2.SubmitJobResponse(job=encode_job(job), existed=existed)

    async def _get(self, request: job_service_pb2.GetJobRequest) -> job_service_pb2.GetJobResponse:
        job = await self._store.get(_id(request.id), outputs=not request.without_outputs)
        return job_service_pb2.GetJobResponse(job=encode_job(_told(job)))

    async def _list(self, request: job_service_pb2.ListJobsRequest) -> job_service_pb2.ListJobsResponse:
        if request.page_size < 0:
            raise InvalidInput(f"a page has at least one job, and not {request.page_size}")
        if len(request.page_token) > MAX_TOKEN:
            raise InvalidInput("that is no page token")
        states = frozenset(map(decode_state, request.states))
        size = min(request.page_size or PAGE, MAX_PAGE)
        page = await self._store.list(states, size, request.page_token)
        return job_service_pb2.ListJobsResponse(jobs=map(encode_job, page.jobs), next_page_token=page.next_token)

    async def _cancel(self, request: job_service_pb2.CancelJobRequest) -> job_service_pb2.CancelJobResponse:
        job = _told(await self._store.get(_id(request.id), outputs=False))
        return job_service_pb2.CancelJobResponse(job=encode_job(await self._store.cancel(job.id)))

    async def _replay(self, request: job_service_pb2.ReplayJobRequest) -> job_service_pb2.ReplayJobResponse:
        job = _told(await self._store.get(_id(request.id), outputs=False))
        return job_service_pb2.ReplayJobResponse(job=encode_job(await self._store.replay(job.id)))

    def _unary(self, method: Callable[[Any], Awaitable[T]]) -> Callable[[Any, Call], Awaitable[T | bytes]]:
        async def answer(request: Any, call: Call) -> T | bytes:
            try:
                with self._calls.room():
                    # The stubs say float, but a call without a deadline gives None.
                    remaining_s = cast("float | None", call.time_remaining())
                    return await _in_time(method(request), answer_within_s(remaining_s, self._answer_s))
            except Exception as error:
                return await end_with(_explained(error), "", call)

        return answer

    # Watching.

    async def _watch(
        self, request: job_service_pb2.WatchJobRequest, call: Call
    ) -> AsyncIterator[job_service_pb2.WatchJobResponse]:
        try:
            with self._watchers.room():
                async with aclosing(self._followed(_id(request.id))) as events:
                    async for event in events:
                        yield encode_event(_told(event) if isinstance(event, Job) else event)
        except Exception as error:
            await end_with(_explained(error), "", call)

    async def _followed(self, id: str) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        """What the store tells of a job, until it is over or it is time to go.

        Raises:
            Unavailable: It was time to go first.
        """
        # Room for one: the next is fetched while the one before is sent, and none beyond.
        told: asyncio.Queue[Job | Progress | Exception | None] = asyncio.Queue(1)

        async def follow() -> None:
            # All in one task, whatever the store does between two events.
            try:
                async with aclosing(self._store.follow(id)) as events:
                    async for event in events:
                        await told.put(event)
                await told.put(None)
            except Exception as error:
                await told.put(error)

        loop = asyncio.get_running_loop()
        until = loop.time() + WATCH_S
        following, leaving = loop.create_task(follow()), loop.create_task(self._leaving.wait())
        hearing: asyncio.Task[Job | Progress | Exception | None] | None = None
        try:
            while True:
                hearing = loop.create_task(told.get())
                await asyncio.wait((hearing, leaving), timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
                if not hearing.done():
                    why = "the gateway is leaving" if leaving.done() else f"one call watches for {WATCH_S:g} s"
                    raise Unavailable(f"{why}: watch again", retry_after_s=RETRY_AFTER_S)
                match hearing.result():
                    case None:
                        return
                    case Exception() as error:
                        raise error
                    case event:
                        yield event
        finally:
            tasks = [task for task in (following, leaving, hearing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class _Bound:
    """So many at once, and no more."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self.taken = 0

    @contextmanager
    def room(self) -> Generator[None]:
        """Be one of them.

        Raises:
            Overloaded: There are as many as may be.
        """
        if self.taken >= self._most:
            raise Overloaded(f"{self.taken} {self._what}, and no more", retry_after_s=RETRY_AFTER_S)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


def _id(text: str) -> str:
    if not text:
        raise InvalidInput("the job's id is missing")
    if len(text) > MAX_ID:
        raise NotFound(f"no job is called {text[:MAX_ID]!r}... here")
    return text


def _told(job: Job) -> Job:
    """The same job, where it is one that somebody submitted. Batches and their shards are for others to look after.

    Raises:
        NotFound: It is none.
    """
    if job.lane not in RUNS:
        raise NotFound(f"no job is called {job.id!r} here")
    return job


def answer_within_s(remaining_s: float | None, most_s: float) -> float:
    """How long the store may take, in seconds, so that the caller can still be told when it does not answer.

    Args:
        remaining_s: Until the call's deadline; None where it has none.
        most_s: Most that it may take.
    """
    if remaining_s is None:
        return most_s
    return min(remaining_s - min(remaining_s / 5, KEPT_BACK_S), most_s)


async def _in_time(work: Awaitable[T], within_s: float) -> T:
    limit = asyncio.timeout(within_s)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unavailable("the store of jobs did not answer in time") from None


def _explained(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    log.error("a call about jobs failed", exc_info=error)
    return NodeFailed("the service of jobs failed; the gateway's log has the cause")


def _serialize(message: Any) -> bytes:
    return message.SerializeToString()
