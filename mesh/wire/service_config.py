"""The service config (https://github.com/grpc/grpc/blob/master/doc/service_config.md): balancing, and what holds for
single methods. Retries are those of gRFC A6 (https://github.com/grpc/proposal/blob/master/A6-client-retries.md), less
hedging, and for UNAVAILABLE alone: of any other status nobody knows whether the work was done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

__all__ = ["POLICIES", "MethodConfig", "RetryPolicy", "ServiceConfig", "Throttling", "parse_service_config"]

PICK_FIRST: Final = "pick_first"
ROUND_ROBIN: Final = "round_robin"
LEAST_LOADED_OF_TWO: Final = "least_loaded_of_two"
POLICIES: Final = (PICK_FIRST, ROUND_ROBIN, LEAST_LOADED_OF_TWO)
"""How one of several servers is picked. The last one is our own: of two picked at random, the one with fewer calls of
this channel under way."""

MOST_ATTEMPTS: Final = 5
"""A6: a policy that asks for more gets this many."""
_DURATION: Final = re.compile(r"\d{1,9}(\.\d{1,9})?s")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a call that ended as UNAVAILABLE is tried, and how long is waited between two attempts."""

    max_attempts: int
    initial_backoff_s: float
    max_backoff_s: float
    multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttling:
    """A6: retries stop while more than half of the tokens are spent; a failure costs one, a success gives some back."""

    max_tokens: float
    token_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """What holds for one method. A call's own arguments stand above it; of two bounds the smaller holds."""

    timeout_s: float | None = None
    wait_for_ready: bool = False
    max_request_bytes: int | None = None
    max_response_bytes: int | None = None
    retry: RetryPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """A whole config."""

    policy: str = PICK_FIRST
    policy_given: bool = False
    methods: Mapping[tuple[str, str], MethodConfig] = field(default_factory=dict[tuple[str, str], MethodConfig])
    """By service and method; an empty method stands for all of a service, an empty service for all there are."""
    throttling: Throttling | None = None

    def with_policy(self, policy: str) -> ServiceConfig:
        """The same with another way of balancing."""
        return replace(self, policy=policy, policy_given=True)

    def of(self, path: str) -> MethodConfig:
        """What holds for `/service/method`."""
        service, _, method = path.lstrip("/").rpartition("/")
        for name in ((service, method), (service, ""), ("", "")):
            if name in self.methods:
                return self.methods[name]
        return MethodConfig()


def parse_service_config(text: str | bytes) -> ServiceConfig:
    """Read the JSON.

    Raises:
        ValueError: It is none, or asks for something that is not supported; names the field.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"grpc.service_config is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError("grpc.service_config is no JSON object")
    known: dict[str, Any] = given
    _only(known, "grpc.service_config", "methodConfig", "retryThrottling", "loadBalancingConfig", "loadBalancingPolicy")
    methods: dict[tuple[str, str], MethodConfig] = {}
    for place, entry in enumerate(known.get("methodConfig", ())):
        where = f"methodConfig[{place}]"
        made = _method(entry, where)
        for name in entry.get("name", ()):
            _only(name, f"{where}.name", "service", "method")
            methods.setdefault((name.get("service", ""), name.get("method", "")), made)
    policy = _policy(known)
    return ServiceConfig(
        policy=policy or PICK_FIRST,
        policy_given=policy is not None,
        methods=methods,
        throttling=_throttling(known.get("retryThrottling")),
    )


def _only(given: Mapping[str, Any], where: str, *names: str) -> None:
    for name in given:
        if name not in names:
            raise ValueError(f"{where} has {name!r}, which is not supported")


def _policy(given: Mapping[str, Any]) -> str | None:
    for entry in given.get("loadBalancingConfig", ()):
        for name in entry:
            if name in POLICIES:
                return name
    if "loadBalancingConfig" in given:
        raise ValueError(f"loadBalancingConfig names none of {', '.join(POLICIES)}")
    policy = given.get("loadBalancingPolicy")
    if policy is None:
        return None
    if str(policy).lower() not in POLICIES:
        raise ValueError(f"loadBalancingPolicy is {policy!r}: one of {', '.join(POLICIES)}")
    return str(policy).lower()


def _throttling(given: Mapping[str, Any] | None) -> Throttling | None:
    if given is None:
        return None
    _only(given, "retryThrottling", "maxTokens", "tokenRatio")
    most, ratio = given.get("maxTokens", 0), round(float(given.get("tokenRatio", 0)), 3)
    if not 0 < most <= 1000 or ratio <= 0:
        raise ValueError("retryThrottling needs maxTokens from 1 to 1000 and tokenRatio above 0")
    return Throttling(max_tokens=float(most), token_ratio=ratio)


def _method(given: Mapping[str, Any], where: str) -> MethodConfig:
    _only(
        given,
        where,
        *("name", "timeout", "waitForReady", "maxRequestMessageBytes", "maxResponseMessageBytes", "retryPolicy"),
    )
    request, response = given.get("maxRequestMessageBytes"), given.get("maxResponseMessageBytes")
    return MethodConfig(
        timeout_s=_duration(given["timeout"], f"{where}.timeout") if "timeout" in given else None,
        wait_for_ready=bool(given.get("waitForReady", False)),
        max_request_bytes=None if request is None else int(request),
        max_response_bytes=None if response is None else int(response),
        retry=_retry(given["retryPolicy"], f"{where}.retryPolicy") if "retryPolicy" in given else None,
    )


def _retry(given: Mapping[str, Any], where: str) -> RetryPolicy:
    names = ("maxAttempts", "initialBackoff", "maxBackoff", "backoffMultiplier", "retryableStatusCodes")
    _only(given, where, *names)
    for name in names:
        if name not in given:
            raise ValueError(f"{where} lacks {name}")
    codes = [str(code).upper() for code in given["retryableStatusCodes"]]
    if codes not in (["UNAVAILABLE"], ["14"]):
        raise ValueError(f"{where}.retryableStatusCodes is {codes}: UNAVAILABLE is the only one that is supported")
    attempts, multiplier = int(given["maxAttempts"]), float(given["backoffMultiplier"])
    if attempts < 2 or multiplier <= 0:
        raise ValueError(f"{where} needs maxAttempts of at least 2 and backoffMultiplier above 0")
    return RetryPolicy(
        max_attempts=min(attempts, MOST_ATTEMPTS),
        initial_backoff_s=_duration(given["initialBackoff"], f"{where}.initialBackoff"),
        max_backoff_s=_duration(given["maxBackoff"], f"{where}.maxBackoff"),
        multiplier=multiplier,
    )


def _duration(text: Any, where: str) -> float:
    """A duration of protobuf's JSON, in seconds."""
    if not isinstance(text, str) or _DURATION.fullmatch(text) is None:
        raise ValueError(f"{where} is {text!r}: write seconds as '1.5s'")
    seconds = float(text[:-1])
    if seconds <= 0:
        raise ValueError(f"{where} is {text!r}: it has to be above 0")
    return seconds
