"""How things are measured here: in turn, A B A B, so that a machine that slows down slows both."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["Paired", "machine", "paired", "paired_async", "summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two ways to do the same, timed in turn. Times are microseconds a unit of work."""

    ours_us: float
    """Median over the rounds."""
    other_us: float
    ratio: float
    """Median over the rounds of ours / other in the same round."""
    ratio_min: float
    ratio_max: float
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """Rounded to what can be believed."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def summary(ours: list[float], other: list[float]) -> Paired:
    """Of seconds a unit of work, round by round."""
    ratios = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
    return Paired(
        ours_us=statistics.median(ours) * 1e6,
        other_us=statistics.median(other) * 1e6,
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        rounds=len(ratios),
    )


def paired(ours: Callable[[], object], other: Callable[[], object], *, calls: int, rounds: int) -> Paired:
    """Time two functions in turn, `calls` calls a round; the first round warms up and does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, kept in ((ours, times[0]), (other, times[1])):
            started = time.perf_counter()
            for _ in range(calls):
                work()
            kept.append((time.perf_counter() - started) / calls)
    return summary(times[0][1:], times[1][1:])


async def paired_async(
    ours: Callable[[], Awaitable[int]], other: Callable[[], Awaitable[int]], *, rounds: int
) -> Paired:
    """Time two coroutines in turn; each says how many units of work it did. The first round does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, kept in ((ours, times[0]), (other, times[1])):
            started = time.perf_counter()
            units = await work()
            kept.append((time.perf_counter() - started) / units)
    return summary(times[0][1:], times[1][1:])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    packages = ("grpcio", "uvloop", "protobuf", "numpy", "onnxruntime")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
