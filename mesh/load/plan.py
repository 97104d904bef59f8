"""`LoadPlan`: what kind of load, how much of it and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mesh.errors import SetupError
from mesh.units import format_duration

__all__ = ["LoadPlan", "Mode"]

Mode = Literal["closed", "constant", "poisson"]
"""`closed`: so many at once, each sent when the last one ended. `constant` and `poisson`: open loop at a rate."""

MAX_CONCURRENCY = 65_536
MAX_RATE_PER_S = 100_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How to load a mesh. What warms it up is sent as well, but not measured.

    Sending ends after `duration_s` or `requests`, whichever is first; at least one of them is needed. What is in
    flight then has its `timeout_s` to end.

    Raises:
        SetupError: Fields are out of range or do not go together; names every one.
    """

    mode: Mode = "closed"
    concurrency: int = 1
    """Closed loop: requests in flight at any time."""
    rate_per_s: float | None = None
    """Open loop: arrivals a second; for `poisson` on average."""
    duration_s: float | None = None
    """Seconds of sending that are measured; the warm-up comes before."""
    requests: int | None = None
    """Requests that are measured; in an open loop, arrivals, sent or not."""
    warm_up_s: float = 0.0
    """Seconds before measuring begins."""
    warm_up_requests: int = 0
    """Requests before measuring begins, instead of seconds."""
    max_in_flight: int = 1024
    """Open loop: an arrival that would be one more than this in flight is not sent, and counted."""
    timeout_s: float = 10.0
    """Seconds that each request may take from when it was sent; in an open loop also how late it may be sent."""
    max_samples: int = 1_000_000
    """Latencies kept for percentiles, 8 bytes each; beyond it a uniform random choice of them is kept."""
    seed: int = 0
    """Of everything random: Poisson arrivals and the choice of latencies kept."""

    def __post_init__(self) -> None:
        mistakes = [text for ok, text in self._rules() if not ok]
        if mistakes:
            raise SetupError("this load cannot be run: " + "; ".join(mistakes))

    def _rules(self) -> list[tuple[bool, str]]:
        rate, duration, requests = self.rate_per_s, self.duration_s, self.requests
        is_open = self.mode != "closed"
        return [
            (self.mode in get_args(Mode), f"mode {self.mode!r} is none of {', '.join(get_args(Mode))}"),
            (1 <= self.concurrency <= MAX_CONCURRENCY, f"concurrency is from 1 to {MAX_CONCURRENCY}"),
            (self.concurrency == 1 or not is_open, f"concurrency is for a closed loop, not for mode {self.mode}"),
            (rate is not None or not is_open, f"mode {self.mode} needs rate_per_s"),
            (rate is None or is_open, "rate_per_s is for an open loop, not for mode closed"),
            (rate is None or 0 < rate <= MAX_RATE_PER_S, f"rate_per_s is above 0 and at most {MAX_RATE_PER_S:g}"),
            (duration is not None or requests is not None, "it needs duration_s or requests"),
            (duration is None or 0 < duration < math.inf, "duration_s is above 0 and finite"),
            (requests is None or requests >= 1, "requests is at least 1"),
            (0 <= self.warm_up_s < math.inf, "warm_up_s is finite and not below 0"),
            (self.warm_up_requests >= 0, "warm_up_requests is not below 0"),
            (not (self.warm_up_s and self.warm_up_requests), "warm_up_s and warm_up_requests exclude each other"),
            (1 <= self.max_in_flight <= MAX_CONCURRENCY, f"max_in_flight is from 1 to {MAX_CONCURRENCY}"),
            (0 < self.timeout_s < math.inf, "timeout_s is above 0 and finite"),
            (self.max_samples >= 1, "max_samples is at least 1"),
        ]

    def __str__(self) -> str:
        """One line for people: `constant 500/s for 10s after 1s of warm-up, at most 256 in flight, timeout 10s`."""
        load = f"{self.mode} {self.rate_per_s:g}/s" if self.rate_per_s else f"closed loop, {self.concurrency} at once,"
        lengths = [format_duration(self.duration_s)] if self.duration_s else []
        lengths += [f"{self.requests} requests"] if self.requests else []
        line = f"{load} for {' or '.join(lengths)}"
        if self.warm_up_s:
            line += f" after {format_duration(self.warm_up_s)} of warm-up"
        if self.warm_up_requests:
            line += f" after {self.warm_up_requests} requests of warm-up"
        if self.mode != "closed":
            line += f", at most {self.max_in_flight} in flight"
        return f"{line}, timeout {format_duration(self.timeout_s)}"
