"""Retries by service config (gRFC A6): what is tried again, how often, when, and what it may cost."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire import frames
from mesh.wire.decoding import Decoder
from mesh.wire.responses import Status
from mesh.wire.retries import Retries
from mesh.wire.service_config import RetryPolicy, Throttling
from tests.unit.wire.client.pairs import WIRE_CLIENT, Code, pair
from tests.unit.wire.client.scripted import answer, scripted, trailers_only
from tests.unit.wire.core.given import RESPONSE, data, headers

POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.02s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
UNAVAILABLE = 14


def config(throttling: Any = None, **changed: Any) -> tuple[str, str]:
    """The option of a service config with a retry policy."""
    made: dict[str, Any] = {"methodConfig": [{"name": [{"service": "test"}], "retryPolicy": POLICY | changed}]}
    if throttling is not None:
        made["retryThrottling"] = throttling
    return ("grpc.service_config", json.dumps(made))


def method(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/test/unary_unary")


@WIRE_CLIENT
async def test_a_server_that_is_unavailable_is_asked_again(engines: str) -> None:
    attempts: list[Any] = []

    async def flaky(request: bytes, context: Any) -> bytes:
        attempts.append(dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts"))
        if len(attempts) < 3:
            await context.abort(Code.UNAVAILABLE, "busy")
        return request

    async with pair(engines, channel={"options": [config()]}, unary_unary=flaky) as channel:
        assert await method(channel)(b"x", timeout=20) == b"x"
        assert attempts == [None, "1", "2"]


@WIRE_CLIENT
@pytest.mark.parametrize(
    ("code", "options", "attempts"),
    [
        (Code.UNAVAILABLE, [config()], 4),
        (Code.UNAVAILABLE, [config(maxAttempts=2)], 2),
        (Code.UNAVAILABLE, [config(maxAttempts=100)], 5),
        (Code.UNAVAILABLE, [config(), ("grpc.enable_retries", 0)], 1),
        (Code.UNAVAILABLE, [], 1),
        (Code.INTERNAL, [config()], 1),
        (Code.RESOURCE_EXHAUSTED, [config()], 1),
    ],
)
async def test_how_often(engines: str, code: grpc.StatusCode, options: Any, attempts: int) -> None:
    seen = 0

    async def refuse(request: bytes, context: Any) -> bytes:
        nonlocal seen
        seen += 1
        await context.abort(code, "no")
        return b""

    async with pair(engines, channel={"options": options}, unary_unary=refuse) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(channel)(b"x", timeout=20)
        assert raised.value.code() is code
        assert seen == attempts


async def test_nothing_is_tried_again_of_which_something_was_received() -> None:
    async with scripted(config()) as (server, channel):
        call = method(channel)(b"x", timeout=20)
        connection = await server.connection()
        await connection.request()
        connection.send(headers(1, RESPONSE), headers(1, ((b"grpc-status", b"14"),), end=True))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert len(connection.requests()) == 1


async def test_a_lost_connection_is_tried_again_as_the_policy_says() -> None:
    async with scripted(config()) as (server, channel):
        call = method(channel)(b"x", timeout=20)
        first = await server.connection()
        await first.request()
        first.hang_up()
        second = await server.connection()
        second.send(answer(await second.request()))
        assert await call == b"answer"


async def test_requests_of_a_stream_are_sent_again_whole() -> None:
    async with scripted(config()) as (server, channel):
        call = channel.stream_unary("/test/stream_unary")(iter([b"one", b"two"]), timeout=20)
        connection = await server.connection()
        connection.send(trailers_only(await connection.request(1), UNAVAILABLE))
        stream_id = await connection.request(2)
        sent = [one.payload[5:] for one in connection.frames if one.kind == frames.DATA and one.stream_id == stream_id]
        assert [one for one in sent if one] == [b"one", b"two"]
        connection.send(answer(stream_id))
        assert await call == b"answer"


async def test_the_server_says_when_to_come_again_or_not_to() -> None:
    async with scripted(config()) as (server, channel):
        call = method(channel)(b"x", timeout=20)
        connection = await server.connection()
        soon = (b"grpc-retry-pushback-ms", b"1")
        connection.send(trailers_only(await connection.request(1), UNAVAILABLE, soon))
        never = (b"grpc-retry-pushback-ms", b"-1")
        connection.send(trailers_only(await connection.request(2), UNAVAILABLE, never))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert len(connection.requests()) == 2


async def test_the_deadline_stands_over_all_attempts() -> None:
    async with scripted(config(initialBackoff="30s", maxBackoff="30s")) as (server, channel):
        call = method(channel)(b"x", timeout=0.2)
        connection = await server.connection()
        connection.send(trailers_only(await connection.request(), UNAVAILABLE))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is Code.DEADLINE_EXCEEDED
        assert not channel._core._later  # pyright: ignore[reportPrivateUsage]


async def test_a_later_attempt_is_told_of_less_time() -> None:
    async with scripted(config()) as (server, channel):
        call = method(channel)(b"x", timeout=20)
        connection = await server.connection()
        connection.send(trailers_only(await connection.request(1), UNAVAILABLE))
        stream_id = await connection.request(2)
        decoder = Decoder(65_536)
        heads = [dict(decoder.decode(one.payload)) for one in connection.frames if one.kind == frames.HEADERS]
        told = [int(head[b"grpc-timeout"].removesuffix(b"m")) for head in heads]
        assert told[1] < told[0] <= 20_001
        connection.send(answer(stream_id))
        assert await call == b"answer"


async def test_a_spent_budget_stops_retries_and_successes_fill_it() -> None:
    async with scripted(config(throttling={"maxTokens": 4, "tokenRatio": 1})) as (server, channel):
        first = method(channel)(b"x", timeout=20)
        connection = await server.connection()
        connection.send(trailers_only(await connection.request(1), UNAVAILABLE))  # 3 of 4 left: again
        connection.send(trailers_only(await connection.request(2), UNAVAILABLE))  # 2 of 4 left: no more
        with pytest.raises(grpc.aio.AioRpcError):
            await first
        assert len(connection.requests()) == 2
        for count in (3, 4):
            good = method(channel)(b"x", timeout=20)
            connection.send(answer(await connection.request(count)))
            assert await good == b"answer"
        again = method(channel)(b"x", timeout=20)
        connection.send(trailers_only(await connection.request(5), UNAVAILABLE))
        connection.send(answer(await connection.request(6)))
        assert await again == b"answer"


async def test_what_we_refuse_ourselves_is_not_tried_again() -> None:
    async with scripted(config(), ("grpc.max_receive_message_length", 3)) as (server, channel):
        call = method(channel)(b"x", timeout=20)
        connection = await server.connection()
        await connection.request()
        connection.send(headers(1, RESPONSE), data(1, b"\0\0\0\0\x04four"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED
        assert len(connection.requests()) == 1


# The rule by itself.

UNAVAILABLE_STATUS = Status(Code.UNAVAILABLE)


@settings(max_examples=200)
@given(
    st.integers(2, 5),
    st.floats(0.001, 10),
    st.floats(0.001, 10),
    st.floats(0.5, 4),
    st.integers(1, 8),
)
def test_delays_grow_within_their_bound_and_jitter(
    attempts: int, initial: float, most: float, multiplier: float, failures: int
) -> None:
    policy = RetryPolicy(max_attempts=attempts, initial_backoff_s=initial, max_backoff_s=most, multiplier=multiplier)
    delay = Retries(None, enabled=True).next_delay(policy, failures, UNAVAILABLE_STATUS)
    if failures >= attempts:
        assert delay is None
    else:
        wanted = min(initial * multiplier ** (failures - 1), most)
        assert delay is not None
        assert wanted * 0.799 <= delay <= wanted * 1.201


@settings(max_examples=200)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20), st.floats(0.01, 2))
def test_the_budget_stays_within_its_bounds(outcomes: list[bool], most: int, ratio: float) -> None:
    retries = Retries(Throttling(max_tokens=most, token_ratio=ratio), enabled=True)
    policy = RetryPolicy(max_attempts=5, initial_backoff_s=1, max_backoff_s=1, multiplier=1)
    tokens = float(most)
    for good in outcomes:
        if good:
            retries.succeeded()
            tokens = min(most, tokens + ratio)
        else:
            tokens = max(0.0, tokens - 1)
            again = retries.next_delay(policy, 1, UNAVAILABLE_STATUS) is not None
            assert again == (tokens > most / 2)
        assert retries.tokens == pytest.approx(tokens)
