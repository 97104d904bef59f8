"""The contenders: which library speaks gRPC, on which event loop."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

import mesh.wire

__all__ = ["ENGINES", "MANY", "MESSAGE", "SERVICE", "Engine", "echo_server", "native_absence"]

SERVICE = "bench.Echo"
MESSAGE = bytes(range(256)) + bytes(44)
"""300 B."""
MANY = 1000
"""Answers to one call of `Many`."""
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


def _native(**given: Any) -> Any:
    return importlib.import_module("pygrpc_native.aio").server(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One contender."""

    server: Callable[..., Any]
    channel: Callable[..., Any]
    """Makes the channel that its server is called with in pairs; pygrpc-native has none of its own."""
    uvloop: bool

    def run(self, main: Any) -> None:
        """Run a coroutine on this contender's event loop."""
        factory: Any = importlib.import_module("uvloop").new_event_loop if self.uvloop else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)


def _engines() -> Mapping[str, Engine]:
    uvloop = importlib.util.find_spec("uvloop") is not None
    plain = grpc.aio.insecure_channel
    found = {
        "wire": Engine(server=mesh.wire.server, channel=mesh.wire.insecure_channel, uvloop=uvloop),
        "grpcio": Engine(server=grpc.aio.server, channel=plain, uvloop=False),
    }
    if uvloop:
        found["grpcio on uvloop"] = Engine(server=grpc.aio.server, channel=plain, uvloop=True)
    if not native_absence():
        found["pygrpc-native"] = Engine(server=_native, channel=plain, uvloop=uvloop)
    return found


def native_absence() -> str:
    """Why pygrpc-native is not among the contenders; empty where it is."""
    if importlib.util.find_spec("pygrpc_native") is None:
        return "not installed here: it has no wheel for this Python or system, or `make bench` did not install it"
    return ""


ENGINES = _engines()
"""By name."""


async def _once(request: bytes, context: Any) -> bytes:
    return request


async def _many(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(MANY):
        yield request


async def _chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def echo_server(engine: str) -> Any:
    """A server that gives back what came, registered as generated code does it. Messages stay bytes: protobuf would
    cost every contender the same.
    """
    handlers = {
        "Once": grpc.unary_unary_rpc_method_handler(_once),
        "Many": grpc.unary_stream_rpc_method_handler(_many),
        "Chat": grpc.stream_stream_rpc_method_handler(_chat),
    }
    made = ENGINES[engine].server(options=OPTIONS)
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    made.add_registered_method_handlers(SERVICE, handlers)
    return made
