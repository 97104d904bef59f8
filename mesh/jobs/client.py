"""`JobClient`: jobs of a running mesh, from Python.

    async with JobClient("grpc://127.0.0.1:8001") as jobs:
        job, _ = await jobs.submit(Tensors({"text": [["An utterly charming film."]]}))
        job = await jobs.wait(job.id)
        if job.state is JobState.DONE:
            print(job.outputs)

It needs no store and no NATS: it asks the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from mesh.context import Context, Parameter, new_request_id
from mesh.errors import Unavailable
from mesh.jobs.gateway_client import GatewayClient
from mesh.jobs.messages import (
    decode_event,
    decode_job,
    encode_callback,
    encode_priority,
    encode_state,
)
from mesh.jobs.records import Callback, Job, JobState, Lane, Page, Progress
from mesh.tensors import Tensors
from mesh.transports import DEFAULT_ENGINE
from mesh.transports.codec import duration, encode_options, encode_tensors
from mesh.v1 import graph_service_pb2, job_service_pb2, job_service_pb2_grpc

__all__ = ["JobClient"]


CALL_S = 30.0
"""How long one answer may take."""
PATIENCE_S = 30.0
"""How long one who watches waits for a gateway that is gone, or for its store."""
FIRST_PAUSE_S = 0.05
MOST_PAUSE_S = 1.0
"""Between two attempts to watch on."""


class JobClient(GatewayClient):
    """An async context manager; it connects when first used. Good for any number of calls at once.

    Every method may raise `Unavailable`: nobody answers at the address, or the gateway does not reach its store; and
    `NotFound` where the mesh takes no jobs, its topology having no `jobs:` block.

    Args:
        address: `grpc://host:port` or `unix:/path` of a gateway.
        engine: What speaks gRPC at this side, `wire` or `grpcio`.
        call_s: How long one answer may take, in seconds. Watching may take longer.

    Raises:
        PlacementError: `address` is no address.
    """

    def __init__(self, address: str, *, engine: str = DEFAULT_ENGINE, call_s: float = CALL_S) -> None:
        super().__init__(address, engine=engine, call_s=call_s, stub=job_service_pb2_grpc.JobServiceStub, takes="jobs")

    async def submit(
        self,
        inputs: Tensors,
        *,
        graph: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        report: bool = False,
        key: str = "",
        priority: Lane = Lane.NORMAL,
        timeout_s: float | None = None,
        callback: Callback | None = None,
    ) -> tuple[Job, bool]:
        """Store a job. It is on disk once this returns.

        Args:
            inputs: What the graph takes.
            graph: The topology's name; empty for that of the gateway.
            parameters: What travels beside the tensors.
            request_id: Names the request in logs and errors; made up where empty.
            report: Whether to keep how the attempt went that gave the result.
            key: Makes it safe to ask again after `Unavailable`: the same key and request give the same job.
            priority: `Lane.HIGH`, `NORMAL` or `LOW`.
            timeout_s: How long it may take from now on, waiting included; None for as long as it takes.
            callback: Who is told of its end.

        Returns:
            The job, and whether it had been there already under this key.

        Raises:
            InvalidInput: The inputs are not those of the graph, or anything else is out of bounds.
            Overloaded: As many jobs wait as may; try again after `retry_after_s`.
            Unavailable: Nobody knows whether it was stored.
        """
        context = Context(
            request_id=request_id or new_request_id(), parameters=parameters or {}, timings=[] if report else None
        )
        run = graph_service_pb2.RunRequest(graph=graph, inputs=encode_tensors(inputs), options=encode_options(context))
        answer = await self._ask(
            "SubmitJob",
            job_service_pb2.SubmitJobRequest(
                request=run,
                idempotency_key=key,
                priority=encode_priority(priority),
                timeout=None if timeout_s is None else duration(timeout_s),
                callback=None if callback is None else encode_callback(callback),
            ),
        )
        return decode_job(answer.job), answer.existed

    async def get(self, id: str, *, outputs: bool = True) -> Job:  # noqa: A002 - what everybody calls it
        """One job as it stands, with its outputs where it is done and they are asked for.

        Raises:
            NotFound: This mesh never gave that id.
        """
        answer = await self._ask("GetJob", job_service_pb2.GetJobRequest(id=id, without_outputs=not outputs))
        return decode_job(answer.job)

    async def list(self, states: Iterable[JobState] = (), *, size: int = 100, token: str = "") -> Page:
        """Some jobs, without outputs: first those that wait or run, then those that are over.

        Args:
            states: Only those; all where there is none.
            size: Most jobs of the page, up to 1000. It may have fewer, or none, and not be the last.
            token: `next_token` of the page before.

        Raises:
            InvalidInput: The token is none, or comes from a list of other states.
        """
        asked = job_service_pb2.ListJobsRequest(states=map(encode_state, states), page_size=size, page_token=token)
        answer = await self._ask("ListJobs", asked)
        return Page(tuple(map(decode_job, answer.jobs)), answer.next_page_token)

    async def cancel(self, id: str) -> Job:  # noqa: A002
        """End a job that is not over.

        Returns:
            The job: CANCELLED, or what it had ended in before.

        Raises:
            NotFound: This mesh never gave that id.
        """
        return decode_job((await self._ask("CancelJob", job_service_pb2.CancelJobRequest(id=id))).job)

    async def replay(self, id: str) -> Job:  # noqa: A002
        """Submit a job that failed again. Asked twice, it answers twice with the same new job.

        Raises:
            NotFound: This mesh never gave that id, or its dead letter has it no more.
            InvalidInput: It did not fail.
        """
        return decode_job((await self._ask("ReplayJob", job_service_pb2.ReplayJobRequest(id=id))).job)

    async def wait(self, id: str, *, patience_s: float = PATIENCE_S) -> Job:  # noqa: A002
        """The job once it is over, with its outputs where it is DONE. See `watch`."""
        async with aclosing(self.watch(id, patience_s=patience_s)) as events:
            async for event in events:
                if isinstance(event, Job) and event.over:
                    return event
        raise AssertionError("a watch ends with the end of its job")  # pragma: no cover

    async def watch(self, id: str, *, patience_s: float = PATIENCE_S) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        """A job as it stands, then each change and what its branches give, to its end: a `Job` that is `over`, with its
        outputs. Close it (`aclosing`) when leaving early.

        A gateway that goes away meanwhile is asked again, at its address, and so is one that does not reach its store;
        what was told already is not told again.

        Args:
            id: The job.
            patience_s: How long to wait for it, in seconds.

        Raises:
            NotFound: This mesh never gave that id.
            Overloaded: As many jobs are watched as may.
            Unavailable: Nobody answered at first, or for so long.
        """
        told = _Told()
        until: float | None = None  # nobody waits for one who never answered
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with aclosing(self._watch_once(id)) as events:
                    async for event in events:
                        until, pause_s = None, FIRST_PAUSE_S
                        if told.is_new(event):
                            yield event
                        if isinstance(event, Job) and event.over:
                            return
                raise Unavailable(f"{self._address} stopped telling of the job")
            except Unavailable as error:
                until = time.monotonic() + patience_s if until is None else until
                if self._closed or not told.any or time.monotonic() + pause_s > until:
                    raise
                await asyncio.sleep(max(pause_s, min(error.retry_after_s, MOST_PAUSE_S)))
                pause_s = min(pause_s * 2, MOST_PAUSE_S)

    async def _watch_once(self, id: str) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        call: Any = self._stub().WatchJob(job_service_pb2.WatchJobRequest(id=id))
        messages = aiter(call)
        try:
            while (message := await self._heard(lambda: anext(messages, None))) is not None:
                event = decode_event(message)
                if event is not None:
                    yield event
        finally:
            call.cancel()


class _Told:
    """What one who watches was told already, for those who come after a break."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._branches: set[tuple[int, str]] = set()

    @property
    def any(self) -> bool:
        """Whether anything was told."""
        return self._job is not None

    def is_new(self, event: Job | Progress) -> bool:
        """Whether this was not told yet; it counts as told from now on."""
        if isinstance(event, Job):
            known, self._job = self._job, event
            return known is None or event != known
        if any(attempt < event.attempt for attempt, _ in self._branches):
            # An attempt that follows begins anew: what the one before gave is history.
            self._branches.clear()
        known_branch = (event.attempt, event.node) in self._branches
        self._branches.add((event.attempt, event.node))
        return not known_branch
