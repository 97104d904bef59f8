"""`Engine`: what speaks gRPC underneath the `grpc://` and `unix:` transports.

An engine makes servers and channels that take grpcio's generated code; the transport knows no more of it than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import grpc

from mesh import wire
from mesh.transports.contract import Limits

__all__ = ["DEFAULT_ENGINE", "ENGINES", "Engine", "GrpcioEngine", "WireEngine"]

_HARD_LIMIT = (1 << 31) - 1
"""protobuf's own bound on a message."""


class Engine(Protocol):
    """Makes servers and channels with the surface of `grpc.aio`."""

    def server(self, limits: Limits) -> grpc.aio.Server:
        """A server that is not started yet."""
        ...

    def channel(self, target: str, limits: Limits) -> grpc.aio.Channel:
        """A channel that connects when first used."""
        ...


def message_bound(limits: Limits) -> int:
    """Bytes of one gRPC message.

    The executor refuses an edge past `max_message_bytes` with an error that names node and tensor. gRPC's own refusal
    can name nothing, so its bound stands well above: it is there for peers that are no mesh. A message may carry
    several edges.
    """
    return min(limits.max_message_bytes * 8 + (1 << 20), _HARD_LIMIT)


def _server_options(limits: Limits) -> list[tuple[str, Any]]:
    return [
        # On by default in grpcio: a second server would bind the same port without an error.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", message_bound(limits)),
        ("grpc.max_send_message_length", message_bound(limits)),
        # Room to answer the calls that are refused.
        ("grpc.max_concurrent_streams", limits.max_in_flight * 2),
        # Our own links ping an idle peer every 10 s; grpc's default would call that too many pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _channel_options(limits: Limits) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", message_bound(limits)),
        ("grpc.max_send_message_length", message_bound(limits)),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),
        # Despite its name this bounds one attempt to connect: 50 ms here made a busy host's workers unreachable.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # Without this one the two above did nothing for a stopped peer (seen with grpcio 1.85).
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Connections to the same address are otherwise shared between channels of one process.
        ("grpc.use_local_subchannel_pool", 1),
    ]


class GrpcioEngine:
    """`grpc.aio`, the C core of gRPC."""

    def server(self, limits: Limits) -> grpc.aio.Server:
        """A server that never shares its port, and that has room to answer the calls it refuses."""
        return grpc.aio.server(options=_server_options(limits), maximum_concurrent_rpcs=limits.max_in_flight * 2 + 16)

    def channel(self, target: str, limits: Limits) -> grpc.aio.Channel:
        """A channel that notices a frozen peer, and a restarted one within a second."""
        return grpc.aio.insecure_channel(target, options=_channel_options(limits))


class WireEngine:
    """`mesh.wire`: gRPC on the event loop. It takes the same options, and means the same by them."""

    def server(self, limits: Limits) -> grpc.aio.Server:
        """As `GrpcioEngine.server`."""
        return wire.server(options=_server_options(limits), maximum_concurrent_rpcs=limits.max_in_flight * 2 + 16)

    def channel(self, target: str, limits: Limits) -> grpc.aio.Channel:
        """As `GrpcioEngine.channel`."""
        return wire.insecure_channel(target, options=_channel_options(limits))


ENGINES: Mapping[str, type[GrpcioEngine | WireEngine]] = {"wire": WireEngine, "grpcio": GrpcioEngine}
"""By the name that a topology and the command line have for them."""
DEFAULT_ENGINE = "wire"
