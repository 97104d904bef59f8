"""`BatchService`: batches of a gateway for callers in any language, over the store and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import grpc

from mesh.errors import InvalidInput, NotFound
from mesh.jobs.answering import Answering, Bound
from mesh.jobs.batches.desk import BatchDesk
from mesh.jobs.batches.messages import encode_batch
from mesh.jobs.schedules.schedule import Documents, Schedule
from mesh.jobs.schedules.service import answer_schedules
from mesh.v1 import batch_service_pb2 as pb

__all__ = ["BatchService"]

PAGE = 100
"""Batches of a page whose size nobody said."""
MAX_PAGE = 1000
MAX_TOKEN = 4096
"""Characters of a page token."""
MAX_ID = 256
MAX_KEY = 256
MAX_CALLS = 64
"""Calls that are worked on at once: some of them look at files."""
ANSWER_S = 120.0
"""How long one call may take: a folder may have a million files."""


class BatchService:
    """Answers for the batches of one graph.

    Args:
        desk: Where they are begun and asked for.
        schedules: Of the graph.
        documents: Where the records of schedules are.
        wall: The time of day.
    """

    name = "mesh.v1.BatchService"
    """The full name of the gRPC service."""

    def __init__(
        self,
        desk: BatchDesk,
        schedules: Sequence[Schedule],
        documents: Documents,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._desk = desk
        self._schedules = schedules
        self._documents = documents
        self._wall = wall
        self._answering = Answering(Bound(MAX_CALLS, "calls about batches are being answered"), ANSWER_S)

    def add(self, server: grpc.aio.Server) -> None:
        """Answer on a server."""
        methods = {
            "StartBatch": (self._start, pb.StartBatchRequest),
            "GetBatch": (self._get, pb.GetBatchRequest),
            "ListBatches": (self._list, pb.ListBatchesRequest),
            "CancelBatch": (self._cancel, pb.CancelBatchRequest),
            "ResumeBatch": (self._resume, pb.ResumeBatchRequest),
            "ListSchedules": (self._list_schedules, pb.ListSchedulesRequest),
        }
        handlers = self._answering.handlers(methods)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, handlers),))

    def leave(self) -> None:
        """Nobody has to be sent away: no call here waits for anything but the store."""

    async def _start(self, request: pb.StartBatchRequest) -> pb.StartBatchResponse:
        if len(request.idempotency_key) > MAX_KEY:
            raise InvalidInput(f"the idempotency key is longer than {MAX_KEY} characters")
        batch = await self._desk.start(request.spec, request.idempotency_key)
        return pb.StartBatchResponse(batch=encode_batch(batch))

    async def _get(self, request: pb.GetBatchRequest) -> pb.GetBatchResponse:
        return pb.GetBatchResponse(batch=encode_batch(await self._desk.get(_id(request.id))))

    async def _list(self, request: pb.ListBatchesRequest) -> pb.ListBatchesResponse:
        if request.page_size < 0:
            raise InvalidInput(f"a page has at least one batch, and not {request.page_size}")
        if len(request.page_token) > MAX_TOKEN:
            raise InvalidInput("that is no page token")
        batches, token = await self._desk.list(min(request.page_size or PAGE, MAX_PAGE), request.page_token)
        return pb.ListBatchesResponse(batches=map(encode_batch, batches), next_page_token=token)

    async def _cancel(self, request: pb.CancelBatchRequest) -> pb.CancelBatchResponse:
        return pb.CancelBatchResponse(batch=encode_batch(await self._desk.cancel(_id(request.id))))

    async def _resume(self, request: pb.ResumeBatchRequest) -> pb.ResumeBatchResponse:
        return pb.ResumeBatchResponse(batch=encode_batch(await self._desk.resume(_id(request.id))))

    async def _list_schedules(self, request: pb.ListSchedulesRequest) -> pb.ListSchedulesResponse:
        return await answer_schedules(request, self._schedules, self._documents, self._wall())


def _id(text: str) -> str:
    if not text:
        raise InvalidInput("the batch's id is missing")
    if len(text) > MAX_ID:
        raise NotFound(f"no batch is called {text[:MAX_ID]!r}... here")
    return text
