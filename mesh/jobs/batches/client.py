"""`BatchClient`: batches of a running mesh, from Python.

    async with BatchClient("grpc://127.0.0.1:8001") as batches:
        batch = await batches.start(GraphBatch(input="/data/in.parquet", output="/data/out"))
        batch = await batches.wait(batch.id)

It needs no store, no NATS and no pyarrow: it asks the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mesh.errors import Unavailable
from mesh.jobs.batches.messages import Batch, decode_batch, write_spec
from mesh.jobs.gateway_client import GatewayClient
from mesh.topology.graph_jobs import GraphBatch
from mesh.transports import DEFAULT_ENGINE
from mesh.v1 import batch_service_pb2 as pb
from mesh.v1 import batch_service_pb2_grpc

__all__ = ["BatchClient"]

CALL_S = 120.0
"""How long one answer may take: input that is large is looked at for long."""
LOOK_S = 0.5
"""Seconds between two looks of one who waits."""
PATIENCE_S = 30.0
"""How long one who waits bears a gateway that is gone, or its store."""


class BatchClient(GatewayClient):
    """An async context manager; it connects when first used. Good for any number of calls at once.

    Every method may raise `Unavailable`: nobody answers at the address, or the gateway does not reach its store; and
    `NotFound` where the mesh takes no batches, its topology having no `jobs:` block.

    Args:
        address: `grpc://host:port` or `unix:/path` of a gateway.
        engine: What speaks gRPC at this side, `wire` or `grpcio`.
        call_s: How long one answer may take, in seconds.

    Raises:
        PlacementError: `address` is no address.
    """

    def __init__(self, address: str, *, engine: str = DEFAULT_ENGINE, call_s: float = CALL_S) -> None:
        stub = batch_service_pb2_grpc.BatchServiceStub
        super().__init__(address, engine=engine, call_s=call_s, stub=stub, takes="batches")

    async def start(self, batch: GraphBatch, *, graph: str = "", key: str = "") -> Batch:
        """Begin a batch. It is on disk once this returns.

        Args:
            batch: What to run over what. Paths are those of the gateway's machine, and absolute.
            graph: The topology's name; empty for that of the gateway.
            key: Makes it safe to ask again after `Unavailable`.

        Raises:
            InvalidInput: What is wrong with it.
            Overloaded: As many jobs wait as may; try again after `retry_after_s`.
        """
        request = pb.StartBatchRequest(spec=write_spec(batch, graph), idempotency_key=key)
        return decode_batch((await self._ask("StartBatch", request)).batch)

    async def get(self, id: str) -> Batch:  # noqa: A002 - what everybody calls it
        """One batch as it stands.

        Raises:
            NotFound: This mesh does not know it, or not any more.
        """
        return decode_batch((await self._ask("GetBatch", pb.GetBatchRequest(id=id))).batch)

    async def list(self, *, size: int = 100, token: str = "") -> tuple[list[Batch], str]:
        """Some batches, and where to go on: first those that wait or run, then those that are over.

        Args:
            size: Most batches, up to 1000.
            token: What the page before said.

        Raises:
            InvalidInput: The token is none.
        """
        answer = await self._ask("ListBatches", pb.ListBatchesRequest(page_size=size, page_token=token))
        return list(map(decode_batch, answer.batches)), answer.next_page_token

    async def cancel(self, id: str) -> Batch:  # noqa: A002
        """End a batch that is not over. What is written stays, and can be resumed.

        Raises:
            NotFound: As `get`.
        """
        return decode_batch((await self._ask("CancelBatch", pb.CancelBatchRequest(id=id))).batch)

    async def resume(self, id: str) -> Batch:  # noqa: A002
        """Go on with a batch that failed or was cancelled: the same work under a new id.

        Raises:
            NotFound: As `get`.
            InvalidInput: There is nothing to go on with, or it is not the same any more; tells the difference.
        """
        return decode_batch((await self._ask("ResumeBatch", pb.ResumeBatchRequest(id=id))).batch)

    async def wait(
        self,
        id: str,  # noqa: A002
        *,
        told: Callable[[Batch], object] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Batch:
        """A batch once it is over.

        Args:
            id: Which.
            told: Told how it stands at each look.
            patience_s: How long to bear that nobody answers, in seconds.

        Raises:
            NotFound: As `get`.
            Unavailable: Nobody answered for so long.
        """
        until: float | None = None
        while True:
            try:
                batch = await self.get(id)
                until = None
                if told is not None:
                    told(batch)
                if batch.over:
                    return batch
            except Unavailable:
                until = time.monotonic() + patience_s if until is None else until
                if self._closed or time.monotonic() > until:
                    raise
            await asyncio.sleep(LOOK_S)
