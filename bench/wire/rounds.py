"""Samples of contenders in turn, and what is made of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Point", "Sample", "in_turn"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contender did in one round."""

    units: int
    """Calls, or messages of a stream."""
    seconds: float
    cpu: float
    """CPU seconds of the process that is measured."""
    server_cpu: float = 0.0
    """Those of the server, where it is the client that is measured."""

    @property
    def cpu_us(self) -> float:
        """A unit."""
        return self.cpu / self.units * 1e6

    @property
    def both_cpu_us(self) -> float:
        """A unit, client and server together."""
        return (self.cpu + self.server_cpu) / self.units * 1e6

    @property
    def wall_us(self) -> float:
        """A unit."""
        return self.seconds / self.units * 1e6


def in_turn(contenders: Mapping[str, Callable[[], Sample]], *, rounds: int) -> dict[str, list[Sample]]:
    """Each once a round, A B C A B C; the first round warms up and does not count."""
    found: dict[str, list[Sample]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, sample in contenders.items():
            found[name].append(sample())
    return {name: samples[1:] for name, samples in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One line of a table: how many times less `wire` takes than the others."""

    samples: Mapping[str, Sequence[Sample]]
    by: Callable[[Sample], float]
    target: float | None = None

    def _median(self, name: str) -> float:
        return statistics.median(map(self.by, self.samples[name]))

    def _ratios(self, name: str) -> list[float]:
        pairs = zip(self.samples[name], self.samples["wire"], strict=True)
        return [self.by(other) / self.by(ours) for other, ours in pairs]

    def to_json(self) -> dict[str, Any]:
        """Medians in microseconds, and ratios within a round to grpcio on the loop on which it does better here."""
        grpcio = min((name for name in self.samples if name.startswith("grpcio")), key=self._median)
        ratios = self._ratios(grpcio)
        found: dict[str, Any] = {
            "us": {name: round(self._median(name), 2) for name in self.samples},
            "grpcio": grpcio,
            "ratio": round(statistics.median(ratios), 2),
            "ratio_min": round(min(ratios), 2),
            "ratio_max": round(max(ratios), 2),
        }
        if "pygrpc-native" in self.samples:
            found["ratio_to_native"] = round(statistics.median(self._ratios("pygrpc-native")), 2)
        if self.target is not None:
            found["target"] = self.target
            found["met"] = found["ratio"] >= self.target
        return found
