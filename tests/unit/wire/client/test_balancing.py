"""Several servers behind one channel: who is asked, who takes over, and who comes back."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import ChannelConnectivity as State

import mesh.wire
from mesh.wire.channel import WireChannel
from tests.unit.wire.client.pairs import Code, service
from tests.unit.wire.client.scripted import OK, Scripted, answer
from tests.unit.wire.core.given import RESPONSE, goaway, headers
from tests.unit.wire.server.engines import SERVERS
from tests.unit.wire.serving import eventually

MANY = pytest.mark.parametrize("policy", ["round_robin", "least_loaded_of_two"])
QUICK = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]


class Replica:
    """A server that answers with its number, and can be held up."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.running = 0
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.running += 1
        try:
            await self.let_go.wait()
        finally:
            self.running -= 1
        return b"%d" % self.number


@asynccontextmanager
async def replicas(count: int, policy: str, engine: str = "wire") -> AsyncGenerator[tuple[list[Replica], WireChannel]]:
    async with AsyncExitStack() as stack:
        made = [Replica(number) for number in range(count)]
        targets = [await stack.enter_async_context(service(engine, unary_unary=one.unary)) for one in made]
        options = [("grpc.lb_policy_name", policy), *QUICK]
        channel = mesh.wire.insecure_channel(f"ipv4:{','.join(targets)}", options)
        yield made, await stack.enter_async_context(channel)


@asynccontextmanager
async def scripts(count: int, policy: str) -> AsyncGenerator[tuple[Sequence[Scripted], WireChannel]]:
    servers = [Scripted(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0") for _ in range(count)]
    for server in servers:
        await server.listen()
    options = [("grpc.lb_policy_name", policy), *QUICK]
    channel = mesh.wire.insecure_channel(f"ipv4:{','.join(server.target for server in servers)}", options)
    try:
        yield servers, channel
    finally:
        await channel.close()
        for server in servers:
            server.deaf()
            for connection in server.every:
                connection.hang_up()
                await connection.gone()


def ask(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/test/unary_unary")(b"", timeout=20)


async def connected(channel: WireChannel, count: int) -> None:
    """Wait until so many servers are connected, no more and no fewer."""
    core: Any = channel._core  # pyright: ignore[reportPrivateUsage]
    channel.get_state(try_to_connect=True)
    await eventually(lambda: len(core._balancer._ready) == count)


@pytest.mark.parametrize("engine", list(SERVERS))
async def test_round_robin_asks_everyone_in_turn(engine: str) -> None:
    async with replicas(3, "round_robin", engine) as (_, channel):
        await connected(channel, 3)
        answers = [await ask(channel) for _ in range(30)]
        assert collections.Counter(answers) == {b"0": 10, b"1": 10, b"2": 10}
        assert answers[:3] * 10 == answers


async def test_pick_first_asks_the_first_that_is_there() -> None:
    async with replicas(3, "pick_first") as (_, channel):
        assert {await ask(channel) for _ in range(20)} == {b"0"}


async def test_the_least_loaded_of_two_avoids_who_is_held_up() -> None:
    async with replicas(2, "least_loaded_of_two") as (made, channel):
        await connected(channel, 2)
        made[0].let_go.clear()
        waiting = [ask(channel) for _ in range(20)]
        await eventually(lambda: made[0].running and sum(one.done() for one in waiting) + made[0].running == 20)
        assert {await ask(channel) for _ in range(20)} == {b"1"}
        made[0].let_go.set()
        assert b"0" in await asyncio.gather(*waiting)


async def test_the_least_loaded_of_two_spreads_calls_over_all() -> None:
    async with replicas(4, "least_loaded_of_two") as (_, channel):
        await connected(channel, 4)
        answers = collections.Counter(await asyncio.gather(*[ask(channel) for _ in range(400)]))
        assert len(answers) == 4
        assert max(answers.values()) - min(answers.values()) <= 20


@MANY
async def test_a_policy_may_come_with_the_service_config(policy: str) -> None:
    async with AsyncExitStack() as stack:
        made = [Replica(number) for number in range(2)]
        targets = [await stack.enter_async_context(service("wire", unary_unary=one.unary)) for one in made]
        config = json.dumps({"loadBalancingConfig": [{"not_known": {}}, {policy: {}}]})
        channel = await stack.enter_async_context(
            mesh.wire.insecure_channel(f"ipv4:{','.join(targets)}", [("grpc.service_config", config)])
        )
        await connected(channel, 2)
        assert {await ask(channel) for _ in range(40)} == {b"0", b"1"}


@MANY
async def test_who_is_lost_is_left_out_and_comes_back(policy: str) -> None:
    async with scripts(2, policy) as (servers, channel):
        await connected(channel, 2)
        first, second = [await server.connection() for server in servers]
        servers[0].deaf()
        first.hang_up()
        await connected(channel, 1)
        for count in range(1, 6):
            call = ask(channel)
            second.send(answer(await second.request(count), b"second"))
            assert await call == b"second"
        assert channel.get_state() is State.READY
        await servers[0].listen()
        back = await servers[0].connection()
        await connected(channel, 2)
        calls = [ask(channel) for _ in range(40)]
        await back.request()
        for call in calls:
            call.cancel()


@MANY
async def test_who_goes_away_ends_its_calls_while_others_take_the_new_ones(policy: str) -> None:
    async with scripts(1, policy) as (servers, channel):
        call = ask(channel)
        old = await servers[0].connection()
        await old.request()
        old.send(goaway(1))
        new = await servers[0].connection()
        other = ask(channel)
        new.send(answer(await new.request(), b"new"))
        assert await other == b"new"
        old.send(headers(1, RESPONSE), b"\0\0\5\0\0\0\0\0\1" + bytes(5), headers(1, OK, end=True))
        assert await call == b""


@MANY
async def test_nobody_is_there(policy: str) -> None:
    options = [("grpc.lb_policy_name", policy), *QUICK]
    async with mesh.wire.insecure_channel("ipv4:127.0.0.1:1,127.0.0.1:2", options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(channel)
        assert raised.value.code() is Code.UNAVAILABLE
        assert "refused" in (raised.value.details() or "") or "Connect call failed" in (raised.value.details() or "")
        assert channel.get_state() in (State.TRANSIENT_FAILURE, State.CONNECTING)


@MANY
async def test_a_name_stands_for_all_its_addresses(policy: str) -> None:
    replica = Replica(7)
    async with service("wire", unary_unary=replica.unary) as place:
        port = place.rpartition(":")[2]
        options = [("grpc.lb_policy_name", policy), *QUICK]
        async with mesh.wire.insecure_channel(f"localhost:{port}", options) as channel:
            assert await ask(channel) == b"7"


@MANY
async def test_calls_beyond_the_streams_of_one_go_to_the_other(policy: str) -> None:
    async with scripts(2, policy) as (servers, channel):
        for server in servers:
            server.greeting = b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\2" + b"\0\0\0\4\1\0\0\0\0"
        await connected(channel, 2)
        first, second = [await server.connection() for server in servers]
        calls = [ask(channel) for _ in range(5)]
        await first.request(2)
        await second.request(2)
        await asyncio.sleep(0)
        assert len(first.requests()) == len(second.requests()) == 2
        first.send(answer(1))
        await first.request(3)
        for connection in (first, second):
            connection.send(
                *[
                    answer(stream_id)
                    for stream_id in connection.requests()
                    if stream_id not in (1,) or connection is second
                ]
            )
        assert await asyncio.gather(*calls) == [b"answer"] * 5
