"""`Policy`: every bound that the supervisor keeps, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Policy"]

_LONGEST_S = 86_400.0
_LARGEST_COUNT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the supervisor is. Durations in seconds.

    Whatever its processes do, a mesh has left within `n * (drain_grace_s + kill_grace_s)` of the first signal, where at
    most `n` processes stand one after the other, and within `kill_grace_s` of the second.

    Raises:
        ValueError: A duration is not above zero and at most a day, a count not from 1 to 1000, a factor out of range.
    """

    ready_timeout_s: float = 60.0
    """From spawn to the first successful probe; a process that takes longer is killed, which counts as a crash."""
    start_probe_interval_s: float = 0.05
    """Between the answer to one probe and the next, until a process is ready."""
    probe_interval_s: float = 1.0
    """The same, once it is ready."""
    probe_timeout_s: float = 5.0
    """A probe without an answer for this long has failed. Generous: a busy machine is not a hung process."""
    hung_after_probes: int = 3
    """Failed probes in a row after which a process that was ready counts as hung, and is killed."""

    backoff_initial_s: float = 0.1
    """Delay before the restart that follows the first crash."""
    backoff_multiplier: float = 2.0
    """By how much each further crash in a row lengthens it; from 1."""
    backoff_max_s: float = 10.0
    """The longest it gets."""
    backoff_jitter: float = 0.2
    """Up to this share is taken off each delay, at random, so that processes do not come back in step; from 0 to 1."""
    crash_limit: int = 6
    """At this many crashes in a row the mesh gives up. What never gets ready crashes in this sense, too."""
    stable_after_s: float = 10.0
    """Ready for this long, a process has recovered: its crashes are forgotten and its delay starts small again."""

    drain_grace_s: float = 10.0
    """Between being asked to leave (SIGTERM) and being killed (SIGKILL)."""
    kill_grace_s: float = 5.0
    """Between SIGKILL and the end; a process the kernel cannot end by then is given up on."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_s") and not 0 < value <= _LONGEST_S:
                raise ValueError(f"{field.name} is {value}: it must be above 0 and at most {_LONGEST_S:g} seconds")
        for name, count in (("hung_after_probes", self.hung_after_probes), ("crash_limit", self.crash_limit)):
            if not 1 <= count <= _LARGEST_COUNT:
                raise ValueError(f"{name} is {count}: it must be from 1 to {_LARGEST_COUNT}")
        if not 1 <= self.backoff_multiplier <= _LARGEST_COUNT:
            raise ValueError(f"backoff_multiplier is {self.backoff_multiplier}: it must be from 1 to {_LARGEST_COUNT}")
        if not 0 <= self.backoff_jitter <= 1:
            raise ValueError(f"backoff_jitter is {self.backoff_jitter}: it must be from 0 to 1")

    def backoff_s(self, crashes: int, chance: float) -> float:
        """Seconds to wait before the restart that follows the `crashes`-th crash in a row.

        Args:
            crashes: From 1.
            chance: From 0 (the whole delay) to 1 (shortened by `backoff_jitter`).
        """
        delay_s = self.backoff_initial_s
        for _ in range(crashes - 1):  # by steps, because a power may overflow; `crash_limit` bounds them
            delay_s = min(delay_s * self.backoff_multiplier, self.backoff_max_s)
        return min(delay_s, self.backoff_max_s) * (1.0 - self.backoff_jitter * chance)
