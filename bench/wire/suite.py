"""(e) What a gRPC call costs: CPU of a server and of a client, throughput and large messages, beside grpcio."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.wire.child import Caller, Server
from bench.wire.engines import ENGINES, native_absence
from bench.wire.load import LoadClient
from bench.wire.neutral import PROGRAM, Neutral
from bench.wire.rounds import Point, Sample, in_turn

__all__ = ["run"]

ROUNDS = 7
SAMPLE_S = 0.12
LARGE = 3 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One point at which servers are measured. Targets: how many times less CPU than grpcio's."""

    method: str = "Once"
    connections: int = 1
    in_flight: int = 1
    target: float | None = None


SERVER: Mapping[str, Load] = {
    "unary, 1 in flight": Load(target=8),
    "unary, 8 in flight": Load(in_flight=8),
    "unary, 64 in flight": Load(in_flight=64, target=25),
    "unary, 64 connections": Load(connections=64, target=12),
    "server streams messages": Load(method="Many"),
    "both stream, 1 message ahead": Load(method="Chat"),
    "both stream, 64 messages ahead": Load(method="Chat", in_flight=64),
}
CLIENT: Mapping[int, float | None] = {1: 4, 8: None, 64: 12}
"""By calls in flight: how many times less CPU than grpcio's client."""
THROUGHPUT_TARGET = 10
LARGE_TARGET, LARGE_AIM = 1, 2
NEUTRAL_ROUNDS = 3


async def run() -> dict[str, Any]:
    """Every point, all contenders in turn."""
    return await asyncio.to_thread(_run)


def _run() -> dict[str, Any]:
    found: dict[str, Any] = {
        "rounds": ROUNDS,
        "native": native_absence() or version("pygrpc-native"),
        "neutral_program": PROGRAM is not None,
        "large_aim": LARGE_AIM,
    }
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        servers = {name: stack.enter_context(Server(name)) for name in ENGINES}
        found["server"] = {name: _under_load(servers, load) for name, load in SERVER.items()}
        if PROGRAM:
            found["neutral"] = {
                name: _neutral(servers, SERVER[name], found["server"][name]["us_wall"])
                for name in ("unary, 1 in flight", "unary, 64 in flight", "unary, 64 connections")
            }
        callers = {
            name: stack.enter_context(Caller(name, servers["wire"].target))
            for name in ENGINES
            if name != "pygrpc-native"  # a server alone
        }
        found["client"] = {
            f"unary, {in_flight} in flight": _clients(callers, in_flight, target)
            for in_flight, target in CLIENT.items()
        }
        paths = {name: str(Path(folder) / f"{index}.sock") for index, name in enumerate(ENGINES)}
        by_unix = {name: stack.enter_context(Server(name, path)) for name, path in paths.items()}
        pairs = _pairs(stack, servers)
        found["pairs"] = {
            "300 B over tcp, 64 in flight": _paired(pairs, in_flight=64, target=THROUGHPUT_TARGET),
            "3 MiB over tcp, 1 in flight": _paired(pairs, size=LARGE, in_flight=1, target=LARGE_TARGET),
            "3 MiB over unix, 1 in flight": _paired(
                _pairs(stack, by_unix), size=LARGE, in_flight=1, target=LARGE_TARGET
            ),
        }
    return found


def _pairs(stack: ExitStack, servers: Mapping[str, Server]) -> dict[str, Caller]:
    return {name: stack.enter_context(Caller(name, server.target)) for name, server in servers.items()}


def _under_load(servers: Mapping[str, Server], load: Load) -> dict[str, Any]:
    """A server's CPU a unit, under the load client."""
    with ExitStack() as stack:

        def sampler(server: Server) -> Callable[[], Sample]:
            client = LoadClient(server.port, load.method, connections=load.connections, in_flight=load.in_flight)
            stack.callback(client.close)

            def sample() -> Sample:
                cpu = server.cpu()
                units, seconds = client.drive(SAMPLE_S)
                return Sample(units=units, seconds=seconds, cpu=server.cpu() - cpu)

            return sample

        samples = in_turn({name: sampler(server) for name, server in servers.items()}, rounds=ROUNDS)
    walls = Point(samples=samples, by=lambda sample: sample.wall_us).to_json()["us"]
    return {**Point(samples=samples, by=lambda sample: sample.cpu_us, target=load.target).to_json(), "us_wall": walls}


def _neutral(servers: Mapping[str, Server], load: Load, walls: Mapping[str, float]) -> dict[str, Any]:
    """The same under h2load, for about as long."""

    def sampler(name: str) -> Callable[[], Sample]:
        calls = max(round(SAMPLE_S * 1e6 / walls[name]), 2 * load.connections)
        shape = {"connections": load.connections, "in_flight": load.in_flight}
        return Neutral(servers[name], calls=calls, **shape).sample

    samples = in_turn({name: sampler(name) for name in servers}, rounds=NEUTRAL_ROUNDS)
    return Point(samples=samples, by=lambda sample: sample.cpu_us, target=load.target).to_json()


def _clients(callers: Mapping[str, Caller], in_flight: int, target: float | None) -> dict[str, Any]:
    """A client's CPU a call, with the same server for all."""
    samples = in_turn({name: _sampler(caller, 300, in_flight) for name, caller in callers.items()}, rounds=ROUNDS)
    return Point(samples=samples, by=lambda sample: sample.cpu_us, target=target).to_json()


def _paired(callers: Mapping[str, Caller], *, size: int = 300, in_flight: int, target: float) -> dict[str, Any]:
    """Time a call, client and server of the same make."""
    samples = in_turn({name: _sampler(caller, size, in_flight) for name, caller in callers.items()}, rounds=ROUNDS)
    return Point(samples=samples, by=lambda sample: sample.wall_us, target=target).to_json()


def _sampler(caller: Caller, size: int, in_flight: int) -> Callable[[], Sample]:
    return lambda: caller.sample(seconds=SAMPLE_S, size=size, in_flight=in_flight)
