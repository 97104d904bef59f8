"""`Retries`: whether a call is tried again, and when (gRFC A6,
https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
"""

from __future__ import annotations

import random

import grpc

from mesh.wire.responses import Status
from mesh.wire.service_config import RetryPolicy, Throttling

__all__ = ["Retries"]


class Retries:
    """The budget of one channel: failures spend it, successes fill it, and with half of it gone nothing is tried again.

    Args:
        throttling: Its size, or None for one without bound other than each call's attempts.
        enabled: Whether policies are looked at.
    """

    __slots__ = ("_enabled", "_throttling", "_tokens")

    def __init__(self, throttling: Throttling | None, *, enabled: bool) -> None:
        self._throttling = throttling
        self._tokens = throttling.max_tokens if throttling is not None else 0.0
        self._enabled = enabled

    @property
    def tokens(self) -> float:
        """What is left of the budget."""
        return self._tokens

    def succeeded(self) -> None:
        """A call went well."""
        throttling = self._throttling
        if throttling is not None:
            self._tokens = min(throttling.max_tokens, self._tokens + throttling.token_ratio)

    def next_delay(self, policy: RetryPolicy, failures: int, status: Status) -> float | None:
        """Seconds until a call that failed for the `failures`-th time is tried again; None where it is not."""
        if not self._enabled:
            return None
        pushback_s = status.pushback_s
        unavailable = status.code is grpc.StatusCode.UNAVAILABLE
        throttling = self._throttling
        if throttling is not None and (unavailable or (pushback_s is not None and pushback_s < 0)):
            self._tokens = max(0.0, self._tokens - 1)
            if self._tokens <= throttling.max_tokens / 2:
                return None
        if not unavailable or failures >= policy.max_attempts:
            return None
        if pushback_s is not None:
            return pushback_s if pushback_s >= 0 else None
        most = min(policy.initial_backoff_s * policy.multiplier ** (failures - 1), policy.max_backoff_s)
        return random.uniform(0.8, 1.2) * most
