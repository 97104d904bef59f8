"""grpcio's channel arguments, as far as a channel of ours keeps them. One that would change behaviour and is not known
is refused by name; one that only tunes grpcio's own machinery is taken and passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from mesh.wire.service_config import POLICIES, ServiceConfig, parse_service_config

__all__ = ["ChannelOptions", "compresses"]

DEFAULT_MESSAGE_BYTES: Final = 4 << 20
"""gRPC's own default for what is received."""

USER_AGENT: Final = "mesh-wire"

_PASSED_OVER: Final = frozenset(
    (
        "grpc.enable_channelz",
        "grpc.http2.bdp_probe",
        "grpc.http2.lookahead_bytes",
        "grpc.http2.max_pings_without_data",  # a keepalive ping is sent when it is due, as the gRPC documents have it
        "grpc.http2.min_time_between_pings_ms",
        "grpc.http2.write_buffer_size",
        "grpc.optimization_target",
        "grpc.service_config_disable_resolution",  # no service config ever comes from a name service
        "grpc.use_local_subchannel_pool",  # connections are never shared between channels
        "grpc.dns_enable_srv_queries",
    )
)
_NEVER_MS: Final = (1 << 31) - 1
"""grpcio's word for "never" in options of milliseconds."""
_GZIP: Final = 2
"""grpcio's number for gzip in `grpc.default_compression_algorithm`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """What of the arguments matters here. Times in seconds, None for never.

    Beside grpcio's names there is `mesh.max_waiting_calls`.
    """

    max_receive_bytes: int = DEFAULT_MESSAGE_BYTES
    max_send_bytes: int = -1
    max_metadata_bytes: int = 16_384
    connect_timeout_s: float = 20.0
    """How long one attempt to connect may take, until the server's first SETTINGS."""
    initial_backoff_s: float = 1.0
    max_backoff_s: float = 120.0
    keepalive_s: float | None = None
    """How long a peer may be silent before it is asked for a sign of life."""
    keepalive_timeout_s: float = 20.0
    keepalive_without_calls: bool = False
    idle_s: float | None = 1800.0
    """After how long without a call the connections are closed, until the next call."""
    authority: str | None = None
    tls_name: str | None = None
    """The name that the server's certificate has to have, instead of the target's."""
    user_agent: str = USER_AGENT
    compress: bool = False
    retries: bool = True
    retry_buffer_bytes: int = 256 << 10
    """Most bytes of one call's messages that are kept to be sent again."""
    max_waiting_calls: int = 10_000
    """Most calls that wait for a connection or for one of its streams; more end as RESOURCE_EXHAUSTED."""
    resolve_interval_s: float = 30.0
    """How long at least lies between two look-ups of the target's name."""
    service_config: ServiceConfig = field(default_factory=ServiceConfig)

    @classmethod
    def read(cls, options: Sequence[tuple[str, Any]] | None) -> ChannelOptions:
        """Take what is known.

        Raises:
            ValueError: An argument that would change behaviour and that we do not have, or a value that is none; names
                it.
        """
        given = dict(options or ())
        found: dict[str, Any] = {}
        _read_service(given, found)
        _read_names(given, found)
        _read_keepalive(given, found)
        for name, value in given.items():
            if name in _PASSED_OVER:
                continue
            match name:
                case "grpc.max_receive_message_length":
                    found["max_receive_bytes"] = value
                case "grpc.max_send_message_length":
                    found["max_send_bytes"] = value
                case "grpc.max_metadata_size" | "grpc.absolute_max_metadata_size":
                    found["max_metadata_bytes"] = max(found.get("max_metadata_bytes", 0), value)
                case "grpc.min_reconnect_backoff_ms":
                    found["connect_timeout_s"] = value / 1e3
                case "grpc.initial_reconnect_backoff_ms":
                    found["initial_backoff_s"] = value / 1e3
                case "grpc.max_reconnect_backoff_ms":
                    found["max_backoff_s"] = value / 1e3
                case "grpc.client_idle_timeout_ms":
                    found["idle_s"] = value / 1e3 if value < _NEVER_MS else None
                case "grpc.enable_retries":
                    found["retries"] = bool(value)
                case "grpc.per_rpc_retry_buffer_size":
                    found["retry_buffer_bytes"] = value
                case "grpc.dns_min_time_between_resolutions_ms":
                    found["resolve_interval_s"] = value / 1e3
                case "grpc.default_compression_algorithm":
                    found["compress"] = _reads_compression(value)
                case "mesh.max_waiting_calls":
                    found["max_waiting_calls"] = value
                case _:
                    raise ValueError(f"the channel does not know the option {name!r}")
        return cls(**found)


def _read_service(given: dict[str, Any], found: dict[str, Any]) -> None:
    text = given.pop("grpc.service_config", None)
    config = ServiceConfig() if text is None else parse_service_config(text)
    policy = given.pop("grpc.lb_policy_name", None)
    if policy is not None and not config.policy_given:
        if policy not in POLICIES:
            raise ValueError(f"grpc.lb_policy_name is {policy!r}: one of {', '.join(POLICIES)}")
        config = config.with_policy(policy)
    found["service_config"] = config


def _read_names(given: dict[str, Any], found: dict[str, Any]) -> None:
    if (authority := given.pop("grpc.default_authority", None)) is not None:
        found["authority"] = _text(authority)
    if (name := given.pop("grpc.ssl_target_name_override", None)) is not None:
        found["tls_name"] = _text(name)
    agents = (given.pop("grpc.primary_user_agent", ""), USER_AGENT)
    agents = (*agents, given.pop("grpc.secondary_user_agent", ""))
    found["user_agent"] = " ".join(_text(agent) for agent in agents if agent)


def _read_keepalive(given: dict[str, Any], found: dict[str, Any]) -> None:
    every = given.pop("grpc.keepalive_time_ms", None)
    if every is not None and every < _NEVER_MS:
        found["keepalive_s"] = every / 1e3
    # grpcio bounds the answer to a ping twice; the shorter bound is the one that is felt.
    answers = [given.pop(name, None) for name in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")]
    bounds = [bound for bound in answers if bound is not None]
    if bounds:
        found["keepalive_timeout_s"] = min(bounds) / 1e3
    found["keepalive_without_calls"] = bool(given.pop("grpc.keepalive_permit_without_calls", False))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _reads_compression(value: Any) -> bool:
    if value not in (0, _GZIP):
        raise ValueError(f"grpc.default_compression_algorithm is {value!r}: 0 for none or {_GZIP} for gzip")
    return value == _GZIP


def compresses(compression: grpc.Compression | None) -> bool:
    """Whether messages are to be compressed.

    Raises:
        ValueError: Another compression than gzip.
    """
    if compression is None or compression is grpc.Compression.NoCompression:
        return False
    if compression is grpc.Compression.Gzip:
        return True
    raise ValueError(f"the compression {compression.name} is not supported: Gzip or NoCompression")
