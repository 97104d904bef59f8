"""`BatchService.ListSchedules`: its answer, and asking for it."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from mesh.errors import InvalidInput, NotFound
from mesh.jobs.schedules.messages import decode_told, encode_told
from mesh.jobs.schedules.schedule import Documents, Schedule, ScheduleTold
from mesh.jobs.schedules.scheduler import DEFAULT_HISTORY, MAX_HISTORY, tell_schedules
from mesh.transports import DEFAULT_ENGINE, ENGINES, Limits
from mesh.transports.grpc import target_of
from mesh.transports.status import DETAILS_KEY, error_of_call
from mesh.v1 import batch_service_pb2, batch_service_pb2_grpc

__all__ = ["answer_schedules", "ask_schedules"]

CALL_S = 30.0
"""How long the answer may take."""


async def answer_schedules(
    request: batch_service_pb2.ListSchedulesRequest, schedules: Sequence[Schedule], store: Documents, now: float
) -> batch_service_pb2.ListSchedulesResponse:
    """The answer of a gateway.

    Args:
        request: What was asked.
        schedules: Of the graph, as `schedules_of` gives them.
        store: Where their records are.
        now: Seconds since the epoch.

    Raises:
        InvalidInput: More history is asked for than is kept.
        Unavailable: The store cannot be reached.
    """
    if not 0 <= request.history <= MAX_HISTORY:
        raise InvalidInput(f"history has to be from 1 to {MAX_HISTORY}, or 0 for {DEFAULT_HISTORY}")
    found = await tell_schedules(schedules, store, now, request.history or DEFAULT_HISTORY)
    return batch_service_pb2.ListSchedulesResponse(schedules=map(encode_told, found))


async def ask_schedules(
    address: str, *, history: int = DEFAULT_HISTORY, engine: str = DEFAULT_ENGINE
) -> list[ScheduleTold]:
    """The schedules of a running mesh.

    Args:
        address: `grpc://host:port` or `unix:/path` of its gateway.
        history: Most runs, and most skips, of each: 1 to 100.
        engine: What speaks gRPC at this side.

    Raises:
        PlacementError: `address` is no address.
        NotFound: The mesh takes no batches.
        RequestError: Nobody answers there, or the store is not reached from there.
    """
    channel = ENGINES[engine]().channel(target_of(address), Limits())
    try:
        ask = batch_service_pb2_grpc.BatchServiceStub(channel).ListSchedules
        request = batch_service_pb2.ListSchedulesRequest(history=history)
        answer: batch_service_pb2.ListSchedulesResponse = await ask(request, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        told = any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())
        if error.code() is grpc.StatusCode.UNIMPLEMENTED and not told:
            raise NotFound(f"{address} takes no batches: its topology needs a jobs: block") from None
        raise error_of_call(error) from None
    finally:
        await channel.close()
    return [decode_told(message) for message in answer.schedules]
