"""What a soak knows of its jobs, kept in the one process that nobody kills; and what it makes of that in the end."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from bench.soak.node import steps
from mesh.jobs.messages import encode_job
from mesh.jobs.records import Job, JobState
from mesh.tensors import Tensors

__all__ = ["LARGE_ROWS", "Ledger", "Task", "task_of"]

LARGE_ROWS = 20_000
"""Rows of a job whose inputs and result are too large to stay in the stream: each 320 kB."""
_TOLD = 20
"""Faults that are told one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class Task:
    """What job number so-and-so is asked, and in which way."""

    inputs: Tensors
    answer: int
    watched: bool
    """Followed to its end, rather than asked for now and then."""
    again: bool
    """Submitted once more when it is over."""


def task_of(number: int) -> Task:
    """The task of a number: the same in each run."""
    n = number + 1
    # Most take no time. Some are under way for long enough to be caught by every kill.
    wait_ms = 500 if number % 500 == 7 else (number * 7919) % 40 if number % 10 == 3 else 0
    rows = LARGE_ROWS if number % 1000 == 11 else 1
    numbers = np.ones(rows, np.int64)
    numbers[0] = n
    inputs = Tensors({"n": numbers, "ms": np.full(rows, wait_ms)})
    return Task(inputs, steps(n), watched=number % 16 == 5, again=number % 50 == 9)


@dataclass
class Ledger:
    """Who was acknowledged, when; and what was visible under each id, each time that somebody looked."""

    jobs: int
    ids: list[str] = field(default_factory=list[str])
    """By number; empty until it is acknowledged."""
    shown: list[bytes] = field(default_factory=list[bytes])
    """By number: a digest of all that was visible of its end, outputs and times included, when it was first seen."""
    acknowledged_at: list[float] = field(default_factory=list[float])
    """Monotonic seconds, in their order."""
    over_at: list[float] = field(default_factory=list[float])
    attempts: Counter[int] = field(default_factory=Counter[int])
    looks: int = 0
    """How often an end was seen, by anybody."""
    changed: set[str] = field(default_factory=set[str])
    """Ids under which two different ends were visible."""
    faults: Counter[str] = field(default_factory=Counter[str])
    told: list[str] = field(default_factory=list[str])
    """The first faults, in words."""

    def __post_init__(self) -> None:
        self.ids = [""] * self.jobs
        self.shown = [b""] * self.jobs

    def acknowledge(self, number: int, id: str) -> None:  # noqa: A002
        """A submission was answered with an id."""
        if not self.ids[number]:
            self.ids[number] = id
            self.acknowledged_at.append(time.monotonic())
        elif self.ids[number] != id:
            self.fault("two ids for one key", f"job {number}: {self.ids[number]}, then {id}")

    def look(self, number: int, job: Job) -> None:
        """Somebody saw the end of a job."""
        self.looks += 1
        told = blake3(encode_job(job).SerializeToString(deterministic=True)).digest(length=8)
        if not self.shown[number]:
            self.shown[number] = told
            self.over_at.append(time.monotonic())
            self.attempts[job.attempt_count] += 1
            self._check(number, job)
        elif self.shown[number] != told:
            self.changed.add(self.ids[number])
            self.fault("an end that changed", f"job {number}, {self.ids[number]}: now {job}")

    def _check(self, number: int, job: Job) -> None:
        task = task_of(number)
        if job.state is not JobState.DONE:
            self.fault(f"{job.state.value}, not done", f"job {number}, {job.id}: {job.error}; {job.attempts}")
        elif job.outputs is None or job.outputs.rows != task.inputs.rows:
            self.fault("a wrong answer", f"job {number}, {job.id}: {job.outputs}")
        elif int(job.outputs["steps"][0]) != task.answer or np.any(job.outputs["steps"][1:]):
            self.fault("a wrong answer", f"job {number}, {job.id}: {job.outputs['steps'][:4]}")

    def fault(self, kind: str, text: str) -> None:
        """Something that never should be."""
        self.faults[kind] += 1
        if len(self.told) < _TOLD:
            self.told.append(f"{kind}: {text}")

    @property
    def acknowledged(self) -> int:
        """Jobs that were."""
        return len(self.acknowledged_at)

    @property
    def over(self) -> int:
        """Jobs whose end was seen."""
        return len(self.over_at)
