"""What the supervisor's machine is told (events) and what it asks for (commands). Plain values, comparable in tests.

`run` counts the starts of one process, from 1. Events carry it, so that word of an earlier run which arrives late is
told from word of the present one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Announce",
    "Command",
    "Event",
    "Exited",
    "Finish",
    "Kill",
    "Probe",
    "ProbeFailed",
    "ProbeSucceeded",
    "Signal",
    "Spawn",
    "SpawnFailed",
    "Spawned",
    "Start",
    "State",
    "Terminate",
    "WakeAt",
    "Woke",
]


class State(StrEnum):
    """Where one process stands; `mesh.supervisor.machine` has the table of transitions."""

    WAITING = "waiting"
    """Not started yet: what it stands after is not ready."""
    STARTING = "starting"
    """Spawned, not ready yet."""
    READY = "ready"
    BACKOFF = "backoff"
    """It crashed, and waits for its next start."""
    DRAINING = "draining"
    """Asked to leave."""
    KILLED = "killed"
    """Sent SIGKILL; not gone yet."""
    STOPPED = "stopped"
    """Gone, and not coming back."""


# ===== Events =====


@dataclass(frozen=True, slots=True)
class Start:
    """Begin. The first event, unless a signal comes before it."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A `Spawn` was carried out."""

    name: str
    run: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """A `Spawn` could not be carried out; there is no process."""

    name: str
    run: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeSucceeded:
    """The process answers and is ready."""

    name: str
    run: int


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """The process gave no answer in time, or one that says "not ready"."""

    name: str
    run: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone. `code` as in `subprocess`: negative for the signal that ended it."""

    name: str
    run: int
    code: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Somebody asks the mesh to leave: the first time by draining, the second time at once."""

    number: int


@dataclass(frozen=True, slots=True)
class Woke:
    """The instant of the last `WakeAt` has come."""


Event = Start | Spawned | SpawnFailed | ProbeSucceeded | ProbeFailed | Exited | Signal | Woke


# ===== Commands =====


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the process; answer with `Spawned` or `SpawnFailed`, and with one `Exited` when it is gone."""

    name: str
    run: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the process whether it is ready; answer with `ProbeSucceeded` or `ProbeFailed` in bounded time."""

    name: str
    run: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process to drain and leave (SIGTERM)."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process and whatever it started (SIGKILL)."""

    name: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Answer with `Woke` at this instant. Takes the place of an earlier one."""

    when: float


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the people watching.

    `READY` with an empty name is said once, when the whole mesh first serves.
    """

    name: str
    """The process; empty for the mesh as a whole."""
    state: State
    """The state it is in now."""
    text: str
    pid: int = 0
    """The operating system's process id; 0 where there is none."""

    def __str__(self) -> str:
        return f"{self.name or 'mesh'}: {self.text}"


@dataclass(frozen=True, slots=True)
class Finish:
    """The end: no process is left, and no command follows. `code` is the exit code for the supervisor itself."""

    code: int


Command = Spawn | Probe | Terminate | Kill | WakeAt | Announce | Finish
