"""Every client with every server. What is to be seen is what is seen between grpcio's own two."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.unit.wire.client.pairs import CLIENTS, Code, pair
from tests.unit.wire.server.engines import SERVERS

__all__ = [
    "CLIENTS",
    "KINDS",
    "STREAMED",
    "UNBOUNDED",
    "Code",
    "Crossed",
    "Ending",
    "TooSoon",
    "as_grpcio",
    "ask",
    "ending",
    "handler",
    "pair",
    "soon",
]

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
STREAMED = ("unary_stream", "stream_stream")
"""Those with any number of responses."""
REFERENCE = "grpcio to grpcio"
MATRIX = [f"{client} to {server}" for client in CLIENTS for server in SERVERS]
MOST_ATTEMPTS = 50
"""To observe what grpcio's client does not hide. Each gives its requests more slowly than the one before."""
UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Behaviour = Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]


_pauses: ContextVar[int] = ContextVar("_pauses", default=0)
"""Turns of the loop between two requests of a call."""


_soon_s: ContextVar[float] = ContextVar("_soon_s", default=0.1)
MOST_SOON_S = 10.0


def soon() -> float:
    """A time, in seconds, in which a call that is held up should have come to where it is held up."""
    return _soon_s.get()


class TooSoon(Exception):
    """The time was over before the call had come there, on a machine that has other things to do.

    It is tried again with four times as much.
    """


class Crossed(Exception):
    """What grpcio's client says of a stream whose status came while it was writing a request, instead of the status:
    "Internal error from Core", or that it was cancelled. It does so or does not as their threads go, with any server,
    and tells nothing of it.
    """


def as_grpcio(scenario: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    """Make a test of a scenario: what it observes of a pair has to be what it observes of grpcio's client and server.

    Args:
        scenario: Takes `engines`, and what else it is parametrised with; gives what it saw, never None.
    """

    references: dict[Any, Any] = {}

    async def observed(engines: str, given: dict[str, Any]) -> Any:
        _pauses.set(0)
        _soon_s.set(0.1)
        for attempt in itertools.count(1):
            try:
                return await scenario(engines=engines, **given)
            except Crossed:
                assert engines.startswith("grpcio")
                assert attempt < MOST_ATTEMPTS
                _pauses.set(attempt * attempt)
            except TooSoon:
                assert soon() < MOST_SOON_S
                _soon_s.set(4 * soon())

    @pytest.mark.parametrize("engines", MATRIX)
    @functools.wraps(scenario)
    async def test(engines: str, **given: Any) -> None:
        seen = await observed(engines, given)
        assert seen is not None
        key = tuple(given.items())
        if key not in references:
            references[key] = await observed(REFERENCE, given)
        reference = references[key]
        assert seen == reference, f"seen: {seen!r}\ngrpcio's own: {reference!r}"

    return test


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """All that a caller can see of a call that is over."""

    messages: tuple[Any, ...]
    raised: str
    """What reading them raised, by its type's name."""
    code: grpc.StatusCode
    details: str
    initial: tuple[tuple[str, Any], ...]
    trailing: tuple[tuple[str, Any], ...]
    cancelled: bool


async def ending(call: Any) -> Ending:
    """Read a call to its end."""
    messages: list[Any] = []
    raised = ""
    try:
        if hasattr(call, "__aiter__"):
            async for message in call:
                messages.append(message)  # noqa: PERF401 - those before an error count
        else:
            messages.append(await call)
    except BaseException as error:
        raised = "AioRpcError" if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
    if await call.details() == "Internal error from Core":
        raise Crossed
    return Ending(
        messages=tuple(messages),
        raised=raised,
        code=await call.code(),
        details=await call.details(),
        initial=tuple((await call.initial_metadata()) or ()),
        trailing=tuple((await call.trailing_metadata()) or ()),
        cancelled=call.cancelled(),
    )


def ask(channel: Any, kind: str, requests: Sequence[bytes] = (b"request",), **given: Any) -> Any:
    """A call of one of the four kinds; those that take one request take the first."""
    method = getattr(channel, kind)(f"/test/{kind}")
    return method(_offered(requests) if kind.startswith("stream") else requests[0], **given)


def _offered(requests: Sequence[bytes]) -> Iterable[bytes] | AsyncIterator[bytes]:
    pauses = _pauses.get()

    async def slowly() -> AsyncIterator[bytes]:
        for request in requests:
            yield request
            for _ in range(pauses):
                await asyncio.sleep(0)

    return slowly() if pauses else iter(requests)


def handler(kind: str, behave: Behaviour) -> dict[str, Any]:
    """A behaviour as a handler of one of the four kinds: what it yields is streamed, or the last of it answers."""

    async def one(request: bytes) -> AsyncIterator[bytes]:
        yield request

    async def answer(requests: AsyncIterator[bytes], context: Any) -> bytes:
        last = b""
        async for response in behave(requests, context):
            last = response
        return last

    async def unary_unary(request: bytes, context: Any) -> bytes:
        return await answer(one(request), context)

    async def unary_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        async for response in behave(one(request), context):
            yield response

    async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for response in behave(requests, context):
            yield response

    handlers = {
        "unary_unary": unary_unary,
        "unary_stream": unary_stream,
        "stream_unary": answer,
        "stream_stream": stream_stream,
    }
    return {kind: handlers[kind]}
