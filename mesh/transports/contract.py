"""`Transport`, `Listener`, `Link`: what every transport gives, and the limits that it keeps to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh.context import Context
from mesh.errors import RequestError
from mesh.handler import Handler
from mesh.signature import TensorSpec
from mesh.tensors import Tensors
from mesh.transports.statistics import Statistics, Tell

__all__ = [
    "CACHE",
    "CACHES",
    "GRAPH",
    "MAX_PARAMETERS",
    "UNCOUNTED",
    "Description",
    "Endpoint",
    "Event",
    "GraphHandler",
    "Limits",
    "Link",
    "Listener",
    "NodeDescription",
    "Service",
    "Transport",
    "node_named",
]

GRAPH = "graph"
"""The kind of an endpoint that is a graph, or a part of one; the others are the kinds of `mesh.node.KINDS`."""
CACHE = "cache"
"""The kind of an endpoint that answers for a cache node, or for the caches of a worker: see `mesh.keeping`."""
CACHES = "*"
"""The name of the endpoint that answers for the caches of a worker, or at a gateway of a mesh."""
UNCOUNTED = "nobody counts here"
"""What a listener without statistics says when it is asked for them."""
MAX_PARAMETERS = 64
"""Parameters of one request."""
_EDGES_A_CALL = 8
_MOST_BYTES = (1 << 31) - (1 << 20)
"""protobuf's own bound on a message, less room for what is in it beside tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that hold for every call, in every placement alike."""

    max_message_bytes: int = 64 << 20
    """Most bytes of tensor data that may travel on one edge. Default 64 MiB."""
    max_in_flight: int = 1024
    """Most calls that one listener works on at once; more are refused as Overloaded. Default 1024."""
    default_timeout_s: float = 30.0
    """The deadline of a call that comes without one, in seconds from its arrival. Default 30 s."""
    max_stream_in_flight: int = 64
    """Most batches of one stream that are worked on at once; the stream is read no further meanwhile. Default 64."""

    def most_bytes(self, kind: str) -> int:
        """Most bytes of tensors in one call to an endpoint of this kind, each way: one edge's; for a graph several's.

        A part of a graph may take and give many edges at once. Each of them is held against `max_message_bytes` where
        its nodes run, so that the bound is met in every placement alike.
        """
        return min(self.max_message_bytes * _EDGES_A_CALL if kind == GRAPH else self.max_message_bytes, _MOST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """One node of a served graph."""

    name: str
    kind: str
    uses: str
    worker: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    after: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A served graph, told."""

    graph: str
    digest: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    nodes: Sequence[NodeDescription]


Event = tuple[str, Tensors | RequestError]
"""One node's end: its name, and its outputs of the graph or its error."""


class GraphHandler(Protocol):
    """A handler that can also answer bit by bit, as the executor does."""

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        """Answer when every output is there."""
        ...

    def stream(self, request: Tensors, context: Context, /) -> AsyncGenerator[Event, None]:
        """Yield (node, its outputs of the graph or its error) as each node ends. Closing it cancels what still runs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Something that a listener answers for."""

    kind: str
    """One of `mesh.node.KINDS`, or `GRAPH`."""
    name: str
    """The node's or graph's name."""
    handler: Handler[Any]
    """Takes `Branches` where kind is aggregate, `CacheCall` where it is cache, else `Tensors`; a `GraphHandler` where
    kind is graph."""
    description: Description | None = field(default=None)
    """For a graph: what Describe tells."""
    front: bool = False
    """Answers calls of its kind that name nobody."""

    @property
    def node(self) -> str:
        """What errors name; empty for a graph, whose errors name their own nodes."""
        return node_named(self.kind, self.name)


def node_named(kind: str, name: str) -> str:
    """The node that an endpoint of this kind and name is; empty for a graph."""
    return "" if kind == GRAPH or name == CACHES else name


class Service(Protocol):
    """A gRPC service that a listener answers for beside its endpoints. Health and reflection tell of it, too."""

    @property
    def name(self) -> str:
        """Its full name, as in `mesh.v1.JobService`."""
        ...

    def add(self, server: Any) -> None:
        """Answer on a `grpc.aio.Server`, or on one of its kind."""
        ...

    def leave(self) -> None:
        """The listener drains: end what would go on for longer than a call may, such as watching."""
        ...


class Listener(Protocol):
    """An open ear."""

    @property
    def address(self) -> str:
        """Where to dial: as asked for, with the real port where the operating system chose it."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Accept nothing new, finish what was accepted, cut off after `grace_s` seconds; twice is harmless."""
        ...


class Link(Protocol):
    """A live connection that stands in for an edge."""

    def handler(self, kind: str, name: str) -> Handler[Any]:
        """The far endpoint as a handler. A call without a deadline gets `Limits.default_timeout_s`.

        Raises, when called: what the far handler raised; NotFound when nothing is called `name` there; Overloaded when
        as many calls are in flight there as may be; InvalidInput for more bytes than a call carries, either way;
        Unavailable when the far side cannot be reached, or goes away with the call in flight.
        """
        ...

    async def ready(self) -> bool:
        """Whether the far side says that it will answer now. False where it cannot be reached."""
        ...

    async def stats(self, timeout_s: float, *, own: bool = False) -> Statistics:
        """What the far side has counted; of the far process alone where `own`.

        Raises:
            RequestError: It cannot be reached, does not answer within `timeout_s`, or counts nothing.
        """
        ...

    async def close(self) -> None:
        """Hang up. Calls in flight end as `Unavailable`; closing twice is harmless."""
        ...


class Transport(Protocol):
    """A way to listen and to dial."""

    async def listen(
        self,
        address: str,
        endpoints: Sequence[Endpoint],
        limits: Limits,
        tell: Tell | None = None,
        services: Sequence[Service] = (),
    ) -> Listener:
        """Serve `endpoints` at `address`; `tell`, where there is one, answers for what was counted.

        `services` are for transports that speak gRPC; others refuse them.

        Raises:
            PlacementError: The address is taken or cannot be bound; never shared silently. Or it takes no services.
        """
        ...

    async def dial(self, address: str, limits: Limits) -> Link:
        """A link to `address`, whether or not anybody listens there yet."""
        ...
