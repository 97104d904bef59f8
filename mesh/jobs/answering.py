"""What services over the store have in common: so many calls at once, each answered in time, and errors as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import grpc

from mesh.errors import NodeFailed, Overloaded, RequestError, Unavailable
from mesh.transports.servicers import end_with

__all__ = ["RETRY_AFTER_S", "Answering", "Bound", "Call", "answer_within_s", "explained", "serialize"]

log = logging.getLogger("mesh.jobs")

Call = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

RETRY_AFTER_S = 0.05
"""The hint of a service that is full."""
KEPT_BACK_S = 0.25
"""What of a call's time is kept back for saying that the store did not answer."""


class Bound:
    """So many at once, and no more.

    Args:
        most: How many.
        what: What they are, as in "7 calls about jobs are being answered, and no more".
    """

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self.taken = 0
        """How many there are."""

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


class Answering:
    """Answers unary calls.

    Args:
        calls: How many at once.
        answer_s: How long the store may take for one, in seconds; never longer than the call's own deadline.
    """

    def __init__(self, calls: Bound, answer_s: float) -> None:
        self._calls = calls
        self._answer_s = answer_s

    def handlers(self, methods: Mapping[str, tuple[Callable[[Any], Awaitable[Any]], Any]]) -> dict[str, Any]:
        """By the name of a method, who answers it.

        Args:
            methods: By name, what gives the answer, and the type of the request.
        """
        return {
            name: grpc.unary_unary_rpc_method_handler(
                self._unary(answer), request_deserializer=request.FromString, response_serializer=serialize
            )
            for name, (answer, request) in methods.items()
        }

    def _unary(self, method: Callable[[Any], Awaitable[T]]) -> Callable[[Any, Call], Awaitable[T | bytes]]:
        async def answer(request: Any, call: Call) -> T | bytes:
            try:
                with self._calls.room():
                    # The stubs say float, but a call without a deadline gives None.
                    remaining_s = cast("float | None", call.time_remaining())
                    return await _in_time(method(request), answer_within_s(remaining_s, self._answer_s))
            except Exception as error:
                return await end_with(explained(error), "", call)

        return answer


def answer_within_s(remaining_s: float | None, most_s: float) -> float:
    """How long the store may take, in seconds, so that the caller can still be told when it does not answer.

    Args:
        remaining_s: Until the call's deadline; None where it has none.
        most_s: Most that it may take.
    """
    if remaining_s is None:
        return most_s
    return min(remaining_s - min(remaining_s / 5, KEPT_BACK_S), most_s)


def explained(error: Exception) -> RequestError:
    """What a caller is told of it."""
    if isinstance(error, RequestError):
        return error
    log.error("a call about jobs failed", exc_info=error)
    return NodeFailed("the service of jobs failed; the gateway's log has the cause")


def serialize(message: Any) -> bytes:
    """A message's bytes."""
    return message.SerializeToString()


async def _in_time(work: Awaitable[T], within_s: float) -> T:
    limit = asyncio.timeout(within_s)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unavailable("the store of jobs did not answer in time") from None
