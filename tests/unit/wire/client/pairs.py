"""Both clients against both servers: what a test says of one pair has to hold of all four."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

import mesh.wire
from tests.unit.wire.server.engines import SERVERS, Methods

__all__ = ["ALL", "CLIENTS", "WIRE_CLIENT", "Code", "ending", "pair", "service"]

CLIENTS: Mapping[str, Any] = {"wire": mesh.wire.insecure_channel, "grpcio": grpc.aio.insecure_channel}
ALL = pytest.mark.parametrize("engines", [f"{client} to {server}" for client in CLIENTS for server in SERVERS])
WIRE_CLIENT = pytest.mark.parametrize("engines", [f"wire to {server}" for server in SERVERS])
Code = grpc.StatusCode


@asynccontextmanager
async def service(engine: str, server_options: Sequence[Any] = (), **handlers: Any) -> AsyncGenerator[str]:
    """A server of an engine with some handlers; its address."""
    server = SERVERS[engine](handlers=[Methods(handlers)], options=[("grpc.so_reuseport", 0), *server_options])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def pair(
    engines: str, server_options: Sequence[Any] = (), channel: Mapping[str, Any] | None = None, **handlers: Any
) -> AsyncGenerator[grpc.aio.Channel]:
    """A client's channel to a server with some handlers."""
    client, _, server = engines.partition(" to ")
    async with (
        service(server, server_options, **handlers) as target,
        CLIENTS[client](target, **(channel or {})) as made,
    ):
        yield made


async def ending(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends."""
    return await call.code(), await call.details()
