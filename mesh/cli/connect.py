"""A link to a running mesh, for the commands that are its clients."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mesh.transports import GrpcTransport, Limits
from mesh.transports.grpc import GrpcLink

__all__ = ["connect"]


@asynccontextmanager
async def connect(address: str, limits: Limits | None = None) -> AsyncGenerator[GrpcLink]:
    """A link that is hung up at the end.

    Raises:
        PlacementError: `address` is no address.
    """
    # gRPC's own log lines name sockets and tell nobody anything; the error that is raised says it all.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    link = await GrpcTransport().dial(address, limits or Limits())
    try:
        yield link
    finally:
        await link.close()
