"""grpcio's channel arguments, as far as a server of ours keeps them. One that would change behaviour and is not known
is refused by name; one that only tunes grpcio's own machinery is taken and passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mesh.wire.limits import WireLimits

__all__ = ["ServerOptions"]

DEFAULT_MESSAGE_BYTES = 4 << 20
"""gRPC's own default for what is received."""

_PASSED_OVER = frozenset(
    (
        "grpc.http2.min_ping_interval_without_data_ms",
        "grpc.http2.min_recv_ping_interval_without_data_ms",
        "grpc.http2.max_pings_without_data",
        "grpc.http2.max_ping_strikes",
        "grpc.http2.ping_timeout_ms",
        "grpc.http2.bdp_probe",
        "grpc.http2.lookahead_bytes",
        "grpc.http2.write_buffer_size",
        "grpc.optimization_target",
        "grpc.enable_retries",
        "grpc.enable_channelz",
        "grpc.use_local_subchannel_pool",
        "grpc.server_handshake_timeout_ms",
        "grpc.keepalive_permit_without_calls",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What of the arguments matters here. Times in seconds, None for never."""

    max_receive_bytes: int = DEFAULT_MESSAGE_BYTES
    max_send_bytes: int = -1
    max_concurrent_streams: int | None = None
    max_metadata_bytes: int | None = None
    reuse_port: bool = False
    keepalive_s: float | None = 7200.0
    keepalive_timeout_s: float = 20.0
    max_idle_s: float | None = None
    max_age_s: float | None = None
    max_age_grace_s: float | None = None

    def bounded(self, limits: WireLimits) -> WireLimits:
        """The limits, with what was said here in their place. Raises ValueError where HTTP/2 cannot express it."""
        told = {"max_concurrent_streams": self.max_concurrent_streams, "max_header_list_bytes": self.max_metadata_bytes}
        return replace(limits, **{name: value for name, value in told.items() if value is not None})

    @classmethod
    def read(cls, options: Sequence[tuple[str, Any]] | None) -> ServerOptions:
        """Take what is known.

        Raises:
            ValueError: An argument that would change behaviour and that we do not have; names it.
        """
        found: dict[str, Any] = {}
        for name, value in options or ():
            if name in _PASSED_OVER:
                continue
            match name:
                case "grpc.max_receive_message_length":
                    found["max_receive_bytes"] = value
                case "grpc.max_send_message_length":
                    found["max_send_bytes"] = value
                case "grpc.max_concurrent_streams":
                    found["max_concurrent_streams"] = value
                case "grpc.max_metadata_size" | "grpc.absolute_max_metadata_size":
                    found["max_metadata_bytes"] = max(found.get("max_metadata_bytes") or 0, value)
                case "grpc.so_reuseport":
                    found["reuse_port"] = bool(value)
                case "grpc.keepalive_time_ms":
                    found["keepalive_s"] = value / 1e3
                case "grpc.keepalive_timeout_ms":
                    found["keepalive_timeout_s"] = value / 1e3
                case "grpc.max_connection_idle_ms":
                    found["max_idle_s"] = value / 1e3
                case "grpc.max_connection_age_ms":
                    found["max_age_s"] = value / 1e3
                case "grpc.max_connection_age_grace_ms":
                    found["max_age_grace_s"] = value / 1e3
                case _:
                    raise ValueError(f"the server does not know the option {name!r}")
        return cls(**found)
