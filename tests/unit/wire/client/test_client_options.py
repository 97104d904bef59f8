"""Channel arguments, service configs and targets, read."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

import mesh.wire
from mesh.wire.client_options import ChannelOptions
from mesh.wire.resolving import Address, NotResolved, parse_target, resolve
from mesh.wire.service_config import MethodConfig, RetryPolicy, ServiceConfig, Throttling, parse_service_config

RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.1s",
    "maxBackoff": "1.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


# Channel arguments.


def test_nothing_given_is_grpcs_defaults() -> None:
    assert ChannelOptions.read(None) == ChannelOptions.read([]) == ChannelOptions()
    made = ChannelOptions()
    assert (made.max_receive_bytes, made.max_send_bytes) == (4 << 20, -1)
    assert (made.initial_backoff_s, made.max_backoff_s, made.connect_timeout_s) == (1.0, 120.0, 20.0)
    assert made.keepalive_s is None


@pytest.mark.parametrize(
    ("name", "value", "field", "read"),
    [
        ("grpc.max_receive_message_length", 7, "max_receive_bytes", 7),
        ("grpc.max_send_message_length", 7, "max_send_bytes", 7),
        ("grpc.max_metadata_size", 7, "max_metadata_bytes", 7),
        ("grpc.initial_reconnect_backoff_ms", 50, "initial_backoff_s", 0.05),
        ("grpc.min_reconnect_backoff_ms", 5000, "connect_timeout_s", 5.0),
        ("grpc.max_reconnect_backoff_ms", 1000, "max_backoff_s", 1.0),
        ("grpc.keepalive_time_ms", 10_000, "keepalive_s", 10.0),
        ("grpc.keepalive_time_ms", (1 << 31) - 1, "keepalive_s", None),
        ("grpc.keepalive_timeout_ms", 5000, "keepalive_timeout_s", 5.0),
        ("grpc.http2.ping_timeout_ms", 3000, "keepalive_timeout_s", 3.0),
        ("grpc.keepalive_permit_without_calls", 1, "keepalive_without_calls", True),
        ("grpc.client_idle_timeout_ms", 2000, "idle_s", 2.0),
        ("grpc.client_idle_timeout_ms", (1 << 31) - 1, "idle_s", None),
        ("grpc.enable_retries", 0, "retries", False),
        ("grpc.per_rpc_retry_buffer_size", 5, "retry_buffer_bytes", 5),
        ("grpc.default_authority", "there", "authority", "there"),
        ("grpc.default_authority", b"there", "authority", "there"),
        ("grpc.ssl_target_name_override", "name", "tls_name", "name"),
        ("grpc.primary_user_agent", "mine", "user_agent", "mine mesh-wire"),
        ("grpc.secondary_user_agent", "mine", "user_agent", "mesh-wire mine"),
        ("grpc.default_compression_algorithm", 2, "compress", True),
        ("grpc.default_compression_algorithm", 0, "compress", False),
        ("grpc.dns_min_time_between_resolutions_ms", 500, "resolve_interval_s", 0.5),
        ("mesh.max_waiting_calls", 5, "max_waiting_calls", 5),
    ],
)
def test_each_argument_means_something(name: str, value: Any, field: str, read: Any) -> None:
    assert getattr(ChannelOptions.read([(name, value)]), field) == read


def test_what_only_tunes_grpcio_is_passed_over() -> None:
    given = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_channelz", 0),
        ("grpc.optimization_target", "latency"),
    ]
    assert ChannelOptions.read(given) == ChannelOptions()


def test_of_two_bounds_on_the_answer_to_a_ping_the_shorter_holds() -> None:
    given = [("grpc.keepalive_timeout_ms", 5000), ("grpc.http2.ping_timeout_ms", 3000)]
    assert ChannelOptions.read(given).keepalive_timeout_s == 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc.nothing_of_the_kind", 1),
        ("grpc.max_concurrent_streams", 5),
        ("grpc.enable_http_proxy", 1),
        ("grpc.lb_policy_name", "xds"),
        ("grpc.default_compression_algorithm", 1),
        ("grpc.service_config", "no json"),
        ("grpc.service_config", "[]"),
    ],
)
def test_what_is_not_known_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        ChannelOptions.read([(name, value)])


async def test_a_channel_is_refused_with_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="unheard"):
        mesh.wire.insecure_channel("localhost:1", [("unheard", 1)])
    with pytest.raises(ValueError, match="Deflate"):
        mesh.wire.insecure_channel("localhost:1", compression=grpc.Compression.Deflate)


def test_a_channel_belongs_to_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        mesh.wire.insecure_channel("localhost:1")


def test_the_service_config_stands_above_the_policys_name() -> None:
    config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    both = [("grpc.lb_policy_name", "least_loaded_of_two"), ("grpc.service_config", config)]
    assert ChannelOptions.read(both).service_config.policy == "round_robin"
    assert ChannelOptions.read(both[:1]).service_config.policy == "least_loaded_of_two"


# Service configs.


def test_a_whole_config() -> None:
    made = parse_service_config(
        json.dumps(
            {
                "loadBalancingConfig": [{"least_loaded_of_two": {}}],
                "methodConfig": [
                    {
                        "name": [{"service": "pkg.S", "method": "M"}, {"service": "pkg.T"}],
                        "timeout": "2.5s",
                        "waitForReady": True,
                        "maxRequestMessageBytes": 10,
                        "maxResponseMessageBytes": "20",
                        "retryPolicy": RETRY,
                    },
                    {"name": [{"service": "pkg.S"}], "timeout": "1s"},
                    {"name": [{}], "timeout": "9s"},
                ],
                "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1234},
            }
        )
    )
    full = MethodConfig(
        timeout_s=2.5,
        wait_for_ready=True,
        max_request_bytes=10,
        max_response_bytes=20,
        retry=RetryPolicy(max_attempts=3, initial_backoff_s=0.1, max_backoff_s=1.5, multiplier=2.0),
    )
    assert made.policy == "least_loaded_of_two"
    assert made.of("/pkg.S/M") == full
    assert made.of("/pkg.T/Any") == full
    assert made.of("/pkg.S/Other") == MethodConfig(timeout_s=1.0)
    assert made.of("/else/Where") == MethodConfig(timeout_s=9.0)
    assert made.throttling == Throttling(max_tokens=10.0, token_ratio=0.123)


def test_an_empty_config_says_nothing() -> None:
    assert parse_service_config("{}") == ServiceConfig()
    assert ServiceConfig().of("/any/Thing") == MethodConfig()
    assert parse_service_config('{"loadBalancingPolicy": "ROUND_ROBIN"}').policy == "round_robin"


def with_method(**fields: Any) -> dict[str, Any]:
    return {"methodConfig": [{"name": [{"service": "s"}], **fields}]}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"healthCheckConfig": {}}, "healthCheckConfig"),
        (with_method(hedgingPolicy={}), r"methodConfig\[0\] has 'hedgingPolicy'"),
        (with_method(timeout="soon"), r"methodConfig\[0\]\.timeout"),
        (with_method(timeout="0s"), "above 0"),
        (with_method(timeout=5), r"methodConfig\[0\]\.timeout"),
        (with_method(retryPolicy=RETRY | {"retryableStatusCodes": ["UNAVAILABLE", "ABORTED"]}), "retryableStatusCodes"),
        (with_method(retryPolicy=RETRY | {"retryableStatusCodes": []}), "retryableStatusCodes"),
        (with_method(retryPolicy=RETRY | {"maxAttempts": 1}), "maxAttempts"),
        (with_method(retryPolicy=RETRY | {"backoffMultiplier": 0}), "backoffMultiplier"),
        (with_method(retryPolicy=RETRY | {"perAttemptRecvTimeout": "1s"}), "perAttemptRecvTimeout"),
        (with_method(retryPolicy={"maxAttempts": 3}), "lacks initialBackoff"),
        ({"methodConfig": [{"name": [{"servce": "s"}]}]}, "servce"),
        ({"loadBalancingConfig": [{"xds": {}}]}, "loadBalancingConfig"),
        ({"loadBalancingPolicy": "grpclb"}, "loadBalancingPolicy"),
        ({"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}, "maxTokens"),
        ({"retryThrottling": {"maxTokens": 1001, "tokenRatio": 1}}, "maxTokens"),
        ({"retryThrottling": {"maxTokens": 5, "tokenRatio": 0}}, "tokenRatio"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(config: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_service_config(json.dumps(config))


# Targets.


@pytest.mark.parametrize(
    ("text", "authority", "addresses"),
    [
        ("unix:relative/path", "localhost", ["unix:relative/path"]),
        ("unix:/absolute", "localhost", ["unix:/absolute"]),
        ("unix:///absolute", "localhost", ["unix:/absolute"]),
        ("unix-abstract:name", "localhost", ["unix-abstract:name"]),
        ("ipv4:127.0.0.1:50", "127.0.0.1:50", ["ipv4:127.0.0.1:50"]),
        ("ipv4:1.2.3.4:5,6.7.8.9", "1.2.3.4:5", ["ipv4:1.2.3.4:5", "ipv4:6.7.8.9:443"]),
        ("ipv4:///1.2.3.4:5", "1.2.3.4:5", ["ipv4:1.2.3.4:5"]),
        ("ipv6:[::1]:50,[fe80::1]:51", "[::1]:50", ["ipv6:[::1]:50", "ipv6:[fe80::1]:51"]),
        ("127.0.0.1:50", "127.0.0.1:50", ["ipv4:127.0.0.1:50"]),
        ("[::1]:50", "[::1]:50", ["ipv6:[::1]:50"]),
        ("host:50", "host:50", []),
        ("host", "host", []),
        ("dns:host:50", "host:50", []),
        ("dns:///host:50", "host:50", []),
        ("dns:///127.0.0.1:50", "127.0.0.1:50", ["ipv4:127.0.0.1:50"]),
    ],
)
def test_targets(text: str, authority: str, addresses: list[str]) -> None:
    target = parse_target(text)
    assert target.authority == authority
    assert [str(address) for address in target.addresses] == addresses


def test_a_name_without_a_port_has_grpcs() -> None:
    assert (parse_target("host").name, parse_target("host").port) == ("host", 443)
    assert (parse_target("host:1").name, parse_target("host:1").port) == ("host", 1)


@pytest.mark.parametrize(
    "text",
    [
        "unix:",
        "unix-abstract:",
        "ipv4:host:50",
        "ipv4:[::1]:50",
        "ipv6:127.0.0.1:50",
        "ipv4:1.2.3.4:port",
        "host:99999",
        ":50",
        "dns://8.8.8.8/host:50",
        "xds:///service",
        "http://host:50",
    ],
)
def test_a_target_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="the target"):
        parse_target(text)


async def test_addresses_need_no_looking_up_and_names_do() -> None:
    assert await resolve(parse_target("ipv4:1.2.3.4:5")) == (Address("1.2.3.4", 5),)
    assert Address("127.0.0.1", 5) in await resolve(parse_target("localhost:5"))
    with pytest.raises(NotResolved, match=r"nothing\.invalid"):
        await resolve(parse_target("nothing.invalid:5"))
