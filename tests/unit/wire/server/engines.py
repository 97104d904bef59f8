"""The same service on our server and on grpcio's: what a test says of one has to hold of the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from mesh.wire.server import server as wire_server

__all__ = ["BOTH", "Methods", "up"]

SERVERS: Mapping[str, Any] = {"wire": wire_server, "grpcio": grpc.aio.server}
BOTH = pytest.mark.parametrize("engine", list(SERVERS))


class Methods(grpc.GenericRpcHandler):
    """Handlers by name: `unary_stream=...` is served at `/test/unary_stream`, of which more than one has a suffix."""

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = {f"/test/{name}": self._made(name, handler) for name, handler in handlers.items()}

    @staticmethod
    def _made(name: str, handler: Any) -> Any:
        kind = next(kind for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream") if kind in name)
        return getattr(grpc, f"{kind}_rpc_method_handler")(handler)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(str(handler_call_details.method))


@asynccontextmanager
async def up(
    engine: str, server_options: Mapping[str, Any] | None = None, **handlers: Any
) -> AsyncGenerator[grpc.aio.Channel]:
    """A server with some handlers, and grpcio's channel to it."""
    server = SERVERS[engine](handlers=[Methods(handlers)], **(server_options or {}))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
            yield channel
    finally:
        await server.stop(None)


OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
