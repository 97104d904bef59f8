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
LARGE_SAMPLE_S = 0.25
"""Of messages that take milliseconds each."""


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
IN_FLIGHT = {"unary, 1 in flight": 1, "unary, 8 in flight": 8, "unary, 64 in flight": 64}
CLIENT_TARGETS = {"unary, 1 in flight": 4, "unary, 64 in flight": 12}
THROUGHPUT_TARGETS = {"unary, 64 in flight": 10}
LARGE_TARGET, LARGE_AIM = 1, 2
NEUTRAL = ("unary, 1 in flight", "unary, 64 in flight", "unary, 64 connections")
NEUTRAL_ROUNDS = 3


async def run() -> dict[str, Any]:
    """Every point, all contenders in turn."""
    return await asyncio.to_thread(_run)


def _run() -> dict[str, Any]:
    found: dict[str, Any] = {
        "rounds": ROUNDS,
        "native": native_absence() or version("pygrpc-native"),
        "large_aim": LARGE_AIM,
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Server(name)) for name in ENGINES}
        found["server"] = {name: _under_load(servers, load) for name, load in SERVER.items()}
        if PROGRAM:
            found["neutral"] = {
                name: _neutral(servers, SERVER[name], found["server"][name]["us_wall"]) for name in NEUTRAL
            }
        found["client"] = _clients(stack, servers["wire"])
        callers = {name: stack.enter_context(Caller(name, server)) for name, server in servers.items()}
        found |= _pairs(callers)
        found["large"] = {"3 MiB over tcp": _large(callers)}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        by_unix: dict[str, Caller] = {}
        for place, name in enumerate(ENGINES):
            server = stack.enter_context(Server(name, str(folder / f"{place}.sock")))
            by_unix[name] = stack.enter_context(Caller(name, server))
        found["large"]["3 MiB over unix"] = _large(by_unix)
    return found


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
    walls = Point(samples=samples, by=_wall).to_json()["us"]
    return {**Point(samples=samples, by=_cpu, target=load.target).to_json(), "us_wall": walls}


def _neutral(servers: Mapping[str, Server], load: Load, walls: Mapping[str, float]) -> dict[str, Any]:
    """The same under h2load, for about as long."""

    def sampler(name: str) -> Callable[[], Sample]:
        calls = max(round(SAMPLE_S * 1e6 / walls[name]), 2 * load.connections)
        shape = {"connections": load.connections, "in_flight": load.in_flight}
        return Neutral(servers[name], calls=calls, **shape).sample

    samples = in_turn({name: sampler(name) for name in servers}, rounds=NEUTRAL_ROUNDS)
    return Point(samples=samples, by=_cpu, target=load.target).to_json()


def _clients(stack: ExitStack, server: Server) -> dict[str, Any]:
    """A client's CPU a call, with the same server for all."""
    # pygrpc-native is a server alone.
    callers = {name: stack.enter_context(Caller(name, server)) for name in ENGINES if name != "pygrpc-native"}
    return {
        name: Point(samples=_called(callers, in_flight), by=_cpu, target=CLIENT_TARGETS.get(name)).to_json()
        for name, in_flight in IN_FLIGHT.items()
    }


def _pairs(callers: Mapping[str, Caller]) -> dict[str, Any]:
    """Client and server of the same make: the client's CPU a call, that of both, and the time."""
    samples = {name: _called(callers, in_flight) for name, in_flight in IN_FLIGHT.items()}

    def points(by: Callable[[Sample], float], targets: Mapping[str, float]) -> dict[str, Any]:
        return {name: Point(samples=of, by=by, target=targets.get(name)).to_json() for name, of in samples.items()}

    return {
        "client_of_pair": points(_cpu, CLIENT_TARGETS),
        "both_of_pair": points(lambda sample: sample.both_cpu_us, {}),
        "pair": points(_wall, THROUGHPUT_TARGETS),
    }


def _large(callers: Mapping[str, Caller]) -> dict[str, Any]:
    """Time of an echo of 3 MiB, one in flight."""
    return Point(samples=_called(callers, 1, LARGE, LARGE_SAMPLE_S), by=_wall, target=LARGE_TARGET).to_json()


def _called(
    callers: Mapping[str, Caller], in_flight: int, size: int = 300, seconds: float = SAMPLE_S
) -> dict[str, list[Sample]]:
    def sampler(caller: Caller) -> Callable[[], Sample]:
        return lambda: caller.sample(seconds=seconds, size=size, in_flight=in_flight)

    return in_turn({name: sampler(caller) for name, caller in callers.items()}, rounds=ROUNDS)


def _cpu(sample: Sample) -> float:
    return sample.cpu_us


def _wall(sample: Sample) -> float:
    return sample.wall_us
