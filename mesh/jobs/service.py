"""`JobService`: a gateway's jobs for callers in any language, over the store and nothing else.

Inputs are held against the graph before anything is stored, so a mistake is told at once, as `Run` tells it. No worker
has to run for any of this: what the store has is what is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from mesh.errors import InvalidInput, NotFound, RequestError, Unavailable
from mesh.jobs.answering import RETRY_AFTER_S, Answering, Bound, Call, explained, serialize
from mesh.jobs.messages import decode_state, encode_event, encode_job
from mesh.jobs.records import RUNS, Job, Progress
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.submission import Submissions
from mesh.transports.servicers import end_with
from mesh.v1 import job_service_pb2

__all__ = ["JobService"]

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
        self._answering = Answering(Bound(max_calls, "calls about jobs are being answered"), answer_s)
        self._watchers = Bound(max_watchers, "jobs are being watched")
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
        methods = {
            "SubmitJob": (self._submit, job_service_pb2.SubmitJobRequest),
            "GetJob": (self._get, job_service_pb2.GetJobRequest),
            "ListJobs": (self._list, job_service_pb2.ListJobsRequest),
            "CancelJob": (self._cancel, job_service_pb2.CancelJobRequest),
            "ReplayJob": (self._replay, job_service_pb2.ReplayJobRequest),
        }
        handlers = self._answering.handlers(methods)
        handlers["WatchJob"] = grpc.unary_stream_rpc_method_handler(
            self._watch,
            request_deserializer=job_service_pb2.WatchJobRequest.FromString,
            response_serializer=serialize,
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
            await end_with(explained(error), "", call)

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
