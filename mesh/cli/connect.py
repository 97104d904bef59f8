"""A running mesh as its clients see it: a link, and what is served there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from mesh.cli.terminal import saying
from mesh.errors import DeadlineExceeded, NotFound, Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.transports import DEFAULT_ENGINE, GrpcTransport, Limits
from mesh.transports.contract import GRAPH, Description
from mesh.transports.grpc import GrpcLink

__all__ = ["Served", "asking", "connect"]


@dataclass(frozen=True, slots=True)
class Served:
    """A graph that answers somewhere."""

    told: Description
    handler: Handler[Tensors]
    link: GrpcLink


@asynccontextmanager
async def connect(address: str, graph: str, engine: str = DEFAULT_ENGINE) -> AsyncGenerator[Served]:
    """A link that is hung up at the end.

    Args:
        address: Where the mesh answers.
        graph: The graph's name; empty for the gateway's own.
        engine: What speaks gRPC at this side.

    Raises:
        PlacementError: `address` is no address.
        RequestError: Nobody answers there, or not for such a graph; names the address.
    """
    link = await GrpcTransport(engine).dial(address, Limits())
    try:
        try:
            with asking(address):
                told = await link.describe(graph)
        except NotFound as error:
            if error.node or (graph and "graph" in error.text):
                raise
            raise NotFound(f"{address} serves no graph: ask the gateway of the mesh") from None
        yield Served(told, link.handler(GRAPH, told.graph), link)
    finally:
        await link.close()


@contextmanager
def asking(address: str) -> Generator[None]:
    """Say what is waited for; when nobody answers, name the address that was asked."""
    try:
        with saying(f"waiting for {address}"):
            yield
    except Unavailable:
        raise Unavailable(f"{address} cannot be reached: nobody answers there") from None
    except DeadlineExceeded:
        raise DeadlineExceeded(f"{address} took the call and does not answer: is it a mesh?") from None
