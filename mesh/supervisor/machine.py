"""The supervisor's decisions, without I/O: events and the time go in, commands come out.

It starts processes in order, waits for each to be ready, restarts what crashes or hangs, and ends all of them in the
reverse of that order. It knows names and exit codes; what a process is, and how it is asked whether it is ready, is
the driver's business.

The mesh as a whole:

    Idle     => Running     `Start`
             => Stopping    a signal came first
    Running  => Stopping    the first signal (code 0)
                            a process ends with `EXIT_SETUP` before the mesh first served (code 2)
                            a process crashed `crash_limit` times in a row (code 1)
                            a killed process did not go within `kill_grace_s` (code 1)
    Stopping => Finished    every process has stopped

One process:

    Waiting  => Starting    everything it stands after is ready
             => Stopped     the mesh is stopping
    Starting => Ready       a probe succeeded
             => Backoff     it exited, or could not be spawned: a crash
             => Killed      not ready within `ready_timeout_s`
             => Draining    the mesh is stopping, and everything that stands after it has stopped
             => Stopped     it exited with `EXIT_SETUP`, or once too often, or while the mesh is stopping
    Ready    => Backoff     it exited: a crash
             => Killed      `hung_after_probes` probes failed in a row
             => Draining    as above
             => Stopped     it exited once too often, or while the mesh is stopping
    Backoff  => Starting    its delay is over
             => Stopped     the mesh is stopping
    Draining => Stopped     it exited
             => Killed      still there after `drain_grace_s` (the mesh ends with code 1: work may have been lost)
    Killed   => Backoff     it exited: a crash
             => Stopped     it exited once too often, or while the mesh is stopping; or it did not go in `kill_grace_s`

The second signal takes whatever is alive to Killed, with exit code 128 + signal. A process that stopped stays stopped.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.supervisor.messages import (
    Announce,
    Command,
    Event,
    Exited,
    Finish,
    Kill,
    Probe,
    ProbeFailed,
    ProbeSucceeded,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    State,
    Terminate,
    WakeAt,
    Woke,
)
from mesh.supervisor.policy import Policy
from mesh.units import format_duration

__all__ = ["EXIT_FAILED", "EXIT_SETUP", "PROCESSES_MAX", "Machine", "ProcessSpec"]

EXIT_FAILED = 1
"""The mesh gave up, or a process had to be killed while it drained."""
EXIT_SETUP = 2
"""A process says with this code that it was set up wrongly, and that trying again will not help."""
PROCESSES_MAX = 1_000
"""More processes than this are refused."""

_ALIVE = frozenset({State.STARTING, State.READY, State.DRAINING, State.KILLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What the machine knows of a process."""

    name: str
    after: tuple[str, ...] = ()
    """It starts once these are ready, and they end once it has stopped. Each must come earlier in the sequence."""


@dataclass(slots=True, eq=False)
class _Process:
    name: str
    after: tuple[_Process, ...]
    before: list[_Process] = field(default_factory=list["_Process"])
    """What stands after this one."""
    state: State = State.WAITING
    run: int = 0
    pid: int = 0
    crashes: int = 0
    """In a row: since it was last ready for `stable_after_s`."""
    failed_probes: int = 0
    """In a row, since it was ready."""
    began: float = 0.0
    """When this run was spawned."""
    due: float | None = None
    """When the time of its present state runs out."""
    probe_due: float | None = None
    """When to probe next; None while a probe is out or none is wanted."""

    @property
    def alive(self) -> bool:
        return self.state in _ALIVE

    def enter(self, state: State, due: float | None = None) -> None:
        self.state = state
        self.due = due
        self.probe_due = None


class Machine:
    """The core of a supervisor; see the module's table.

    Args:
        processes: In the order of start.
        policy: Every bound.
        seed: Decides the jitter of delays; the same seed and events give the same commands.

    Raises:
        ValueError: No process or too many, a name given twice or empty, or one that stands after a process which does
            not come earlier.
    """

    def __init__(self, processes: Sequence[ProcessSpec], policy: Policy, *, seed: int = 0) -> None:
        self._policy = policy
        self._chance = random.Random(seed)
        self._processes = _linked(processes)
        self._now = 0.0
        self._commands: list[Command] = []
        self._wake_at: float | None = None
        self._begun = False
        self._served = False
        """Every process has been ready at the same time."""
        self._signals = 0
        self._exit_code: int | None = None
        """Set when the mesh begins to stop."""
        self._finished = False

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each process, in the order of start."""
        return {process.name: process.state for process in self._processes.values()}

    @property
    def finished(self) -> bool:
        """Whether `Finish` has been given."""
        return self._finished

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about `event`, in this order. Empty once finished.

        Args:
            event: What happened. Of an earlier run, or of a process that is gone, it changes nothing.
            now: Seconds since some fixed instant. It never goes back.

        Raises:
            KeyError: The event names a process that is not one of these.
        """
        if self._finished:
            return []
        self._now = now
        commands = self._commands = []
        match event:
            case Start():
                self._begun = True
            case Signal():
                self._on_signal(event.number)
            case Woke():
                self._wake_at = None  # it is spent, even when it came a hair too early
            case Spawned() | SpawnFailed() | ProbeSucceeded() | ProbeFailed() | Exited():
                process = self._processes[event.name]
                if process.alive and process.run == event.run:
                    self._on_word_of(process, event)
        self._settle()
        return commands

    # ===== Events =====

    def _on_word_of(
        self, process: _Process, event: Spawned | SpawnFailed | ProbeSucceeded | ProbeFailed | Exited
    ) -> None:
        match event:
            case Spawned():
                process.pid = event.pid
                if process.state is State.STARTING:
                    process.probe_due = self._now
                    self._announce(process, f"starting (pid {event.pid})")
            case SpawnFailed():
                self._on_gone(process, f"could not be started: {event.reason}")
            case ProbeSucceeded():
                self._on_probe_succeeded(process)
            case ProbeFailed():
                self._on_probe_failed(process, event.reason)
            case Exited():
                setup = event.code == EXIT_SETUP and process.state is State.STARTING and not self._served
                self._on_gone(process, _manner(event.code), setup=setup)

    # Starting => Ready
    def _on_probe_succeeded(self, process: _Process) -> None:
        if process.state is State.STARTING:
            process.enter(State.READY, due=self._now + self._policy.stable_after_s)
            self._announce(process, f"ready after {format_duration(self._now - process.began)}")
        if process.state is State.READY:
            process.failed_probes = 0
            process.probe_due = self._now + self._policy.probe_interval_s

    # Ready => Killed
    def _on_probe_failed(self, process: _Process, reason: str) -> None:
        if process.state is State.STARTING:
            process.probe_due = self._now + self._policy.start_probe_interval_s
        if process.state is State.READY:
            process.failed_probes += 1
            process.probe_due = self._now + self._policy.probe_interval_s
            if process.failed_probes >= self._policy.hung_after_probes:
                self._kill(process, f"hung: {process.failed_probes} probes in a row failed, the last with: {reason}")

    # Starting | Ready | Draining | Killed => Backoff | Stopped
    def _on_gone(self, process: _Process, manner: str, *, setup: bool = False) -> None:
        if self._exit_code is not None:
            self._retire(process, manner)
            return
        if setup:
            self._retire(process, f"{manner}: it is set up wrongly")
            self._stop(EXIT_SETUP, f"{process.name} is set up wrongly; stopping")
            return
        process.crashes += 1
        limit = self._policy.crash_limit
        if process.crashes >= limit:
            self._retire(process, f"{manner} (crash {process.crashes} of {limit})")
            self._stop(EXIT_FAILED, f"{process.name} crashed {limit} times in a row; stopping")
            return
        delay_s = self._policy.backoff_s(process.crashes, self._chance.random())
        process.pid = 0
        process.enter(State.BACKOFF, due=self._now + delay_s)
        text = f"{manner}; starts again in {format_duration(delay_s)} (crash {process.crashes} of {limit})"
        self._announce(process, text)

    # Running => Stopping, and from the second on: whatever is alive => Killed
    def _on_signal(self, number: int) -> None:
        self._signals += 1
        name = _signal_name(number)
        if self._signals == 1:
            self._stop(0, f"{name}: draining; once more to leave at once")
        elif self._signals == 2:
            self._exit_code = 128 + number
            self._announce_mesh(State.KILLED, f"{name} again: leaving at once")
            for process in reversed(self._processes.values()):
                if process.alive and process.state is not State.KILLED:
                    self._kill(process, "killed")

    # ===== Time =====

    def _settle(self) -> None:
        """Do everything that the present states and instant call for."""
        for process in self._processes.values():
            if process.due is not None and self._now >= process.due:
                self._time_out(process)
        if self._exit_code is not None:
            self._stop_next()
        elif self._begun:
            self._start_next()
        if not self._finished:
            self._wake()

    def _time_out(self, process: _Process) -> None:
        process.due = None
        match process.state:
            case State.STARTING:
                self._kill(process, f"not ready within {format_duration(self._policy.ready_timeout_s)}")
            case State.READY:
                process.crashes = 0
            case State.BACKOFF:
                self._spawn(process)
            case State.DRAINING:
                self._kill(process, f"still there after {format_duration(self._policy.drain_grace_s)}; killed")
                self._stop(EXIT_FAILED, f"{process.name} did not drain")
            case State.KILLED:
                self._retire(process, f"could not be killed (pid {process.pid})")
                self._stop(EXIT_FAILED, f"{process.name} could not be killed; stopping")
            case State.WAITING | State.STOPPED:
                raise AssertionError(f"{process.name} is {process.state}, which takes no time")

    # Waiting => Starting
    def _start_next(self) -> None:
        for process in self._processes.values():
            if process.state is State.WAITING and all(other.state is State.READY for other in process.after):
                self._spawn(process)
            if process.probe_due is not None and self._now >= process.probe_due:
                process.probe_due = None
                self._commands.append(Probe(process.name, process.run))
        if not self._served and all(process.state is State.READY for process in self._processes.values()):
            self._served = True
            self._announce_mesh(State.READY, "ready")

    # Waiting | Backoff => Stopped, Starting | Ready => Draining
    def _stop_next(self) -> None:
        for process in reversed(self._processes.values()):
            process.probe_due = None
            if any(other.state is not State.STOPPED for other in process.before):
                continue
            if process.state in (State.WAITING, State.BACKOFF):
                process.enter(State.STOPPED)
            elif process.state in (State.STARTING, State.READY):
                process.enter(State.DRAINING, due=self._now + self._policy.drain_grace_s)
                self._commands.append(Terminate(process.name))
                self._announce(process, "draining")
        if all(process.state is State.STOPPED for process in self._processes.values()):
            assert self._exit_code is not None
            self._announce_mesh(State.STOPPED, "stopped")
            self._commands.append(Finish(self._exit_code))
            self._finished = True

    def _wake(self) -> None:
        instants = [
            instant
            for process in self._processes.values()
            for instant in (process.due, process.probe_due)
            if instant is not None
        ]
        when = min(instants, default=None)
        if when is not None and when != self._wake_at:
            self._wake_at = when
            self._commands.append(WakeAt(when))

    # ===== Steps =====

    def _spawn(self, process: _Process) -> None:
        assert not process.alive, f"{process.name} is {process.state}"
        process.run += 1
        process.began = self._now
        process.failed_probes = 0
        process.enter(State.STARTING, due=self._now + self._policy.ready_timeout_s)
        self._commands.append(Spawn(process.name, process.run))

    def _kill(self, process: _Process, why: str) -> None:
        assert process.alive, f"{process.name} is {process.state}"
        process.enter(State.KILLED, due=self._now + self._policy.kill_grace_s)
        self._commands.append(Kill(process.name))
        self._announce(process, why)

    def _retire(self, process: _Process, manner: str) -> None:
        process.enter(State.STOPPED)
        self._announce(process, manner)
        process.pid = 0

    def _stop(self, code: int, why: str) -> None:
        if self._exit_code is None:
            self._exit_code = code
            self._announce_mesh(State.DRAINING, why)
        elif self._exit_code == 0:
            self._exit_code = code

    def _announce(self, process: _Process, text: str) -> None:
        self._commands.append(Announce(process.name, process.state, text, process.pid))

    def _announce_mesh(self, state: State, text: str) -> None:
        self._commands.append(Announce("", state, text))


def _linked(specs: Sequence[ProcessSpec]) -> dict[str, _Process]:
    if not 1 <= len(specs) <= PROCESSES_MAX:
        raise ValueError(f"{len(specs)} processes: there must be from 1 to {PROCESSES_MAX}")
    processes: dict[str, _Process] = {}
    for spec in specs:
        if not spec.name or spec.name in processes:
            raise ValueError(f"the process name {spec.name!r} is empty or given twice")
        for other in spec.after:
            if other not in processes:
                raise ValueError(f"{spec.name} stands after {other!r}, which is not an earlier process")
        process = _Process(spec.name, tuple(processes[other] for other in spec.after))
        for other in process.after:
            other.before.append(process)
        processes[spec.name] = process
    return processes


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _manner(code: int) -> str:
    return f"ended by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
