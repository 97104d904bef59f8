"""Carries out what the machine decides: processes, probes, timers and signals, on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence

from mesh.context import Clock, SystemClock, Timer
from mesh.supervisor.child import Child, Process
from mesh.supervisor.machine import Machine
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
    Terminate,
    WakeAt,
    Woke,
)
from mesh.supervisor.policy import Policy

__all__ = ["Supervisor", "print_announcement", "print_line", "supervise"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def print_line(name: str, line: str) -> None:
    """Pass a line of a process on, to standard error."""
    print(f"{name} | {line}", file=sys.stderr, flush=True)


def print_announcement(announcement: Announce) -> None:
    """Say what changed, on standard error."""
    print(announcement, file=sys.stderr, flush=True)


class Supervisor:
    """Runs processes until it is asked to leave, or gives up.

    Args:
        processes: In the order of start; a process ends before those that it stands after.
        probe: Asked with the name of a process whether it is ready. False, any exception and no answer within
            `policy.probe_timeout_s` mean "no". It must honour cancellation.
        policy: Every bound.
        on_announcement: Told of each change; must be quick. An `OSError` of it (nobody reads any more) is passed over.
        on_line: Given the name of a process and each line of its output; likewise.
        clock: Decides when restarts, probes and time limits are due.

    Raises:
        ValueError: The processes or their order make no sense; see `Machine`.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        probe: Callable[[str], Awaitable[bool]],
        *,
        policy: Policy | None = None,
        on_announcement: Callable[[Announce], object] = print_announcement,
        on_line: Callable[[str, str], object] = print_line,
        clock: Clock | None = None,
    ) -> None:
        self._policy = policy or Policy()
        self._machine = Machine(processes, self._policy, seed=os.getpid())
        self._processes = {process.name: process for process in processes}
        self._probe = probe
        self._on_announcement = on_announcement
        self._on_line = on_line
        self._clock = clock or SystemClock()
        # Bounded by what can be under way: a spawn, a probe and an end for each process, a timer, two signals.
        self._events = asyncio.Queue[Event]()
        self._signals = 0
        self._timer: Timer | None = None
        self._children: dict[str, Child] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._ran = False

    async def run(self) -> int:
        """Start everything, keep it alive, and end it; call it once.

        When it is cancelled, or a callback raises, every process is killed before it returns.

        Returns:
            The exit code: 0 after an orderly end, 1 when it gave up on a process or had to kill one that did not drain,
            2 when a process says that it is set up wrongly, 128 + signal when it was told twice to leave.
        """
        if self._ran:
            raise RuntimeError("a supervisor runs once")
        self._ran = True
        self._events.put_nowait(Start())
        try:
            return await self._obey()
        finally:
            await self._clear()

    def leave(self, number: int = signal.SIGTERM) -> None:
        """Ask it to leave, as the signal `number` does: the first time it drains, the second time it kills."""
        self._signals += 1
        if self._signals <= 2:
            self._events.put_nowait(Signal(number))

    async def _obey(self) -> int:
        while True:
            event = await self._events.get()
            for command in self._machine.handle(event, self._clock.now()):
                if isinstance(command, Finish):
                    return command.code
                await self._carry_out(command)

    async def _carry_out(self, command: Command) -> None:
        match command:
            case Spawn(name, run):
                await self._spawn(name, run)
            case Probe(name, run):
                self._probes[name] = asyncio.create_task(self._ask(name, run), name=f"probe {name}")
            case Terminate(name):
                if child := self._children.get(name):
                    child.terminate()
            case Kill(name):
                if child := self._children.get(name):
                    child.kill()
            case WakeAt(when):
                self._wake_at(when)
            case Announce():
                with contextlib.suppress(OSError):
                    self._on_announcement(command)
            case Finish():
                raise AssertionError("a finish ends the loop")

    async def _spawn(self, name: str, run: int) -> None:
        try:
            child = await Child.start(self._processes[name], lambda line: self._pass_on(name, line))
        except OSError as error:
            self._events.put_nowait(SpawnFailed(name, run, error.strerror or type(error).__name__))
            return
        self._children[name] = child
        self._watches[name] = asyncio.create_task(self._watch(name, run, child), name=f"watch {name}")
        self._events.put_nowait(Spawned(name, run, child.pid))

    async def _watch(self, name: str, run: int, child: Child) -> None:
        code = await child.wait()
        del self._children[name]
        if probe := self._probes.pop(name, None):
            probe.cancel()
        self._events.put_nowait(Exited(name, run, code))

    async def _ask(self, name: str, run: int) -> None:
        try:
            async with asyncio.timeout(self._policy.probe_timeout_s):
                reason = "" if await self._probe(name) else "not ready"
        except TimeoutError:
            reason = "no answer in time"
        except asyncio.CancelledError:
            # A call that was cancelled underneath (a closed channel) is an answer; this task's own cancelling is not.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            reason = "cancelled"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        self._events.put_nowait(ProbeFailed(name, run, reason) if reason else ProbeSucceeded(name, run))

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(when, lambda: self._events.put_nowait(Woke()))

    def _pass_on(self, name: str, line: str) -> None:
        with contextlib.suppress(OSError):
            self._on_line(name, line)

    async def _clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for child in self._children.values():
            child.kill()
        for probe in self._probes.values():
            probe.cancel()
        if tasks := [*self._watches.values(), *self._probes.values()]:
            _, stuck = await asyncio.wait(tasks, timeout=self._policy.kill_grace_s)
            for task in stuck:  # what even SIGKILL does not end
                task.cancel()


async def supervise(
    processes: Sequence[Process],
    probe: Callable[[str], Awaitable[bool]],
    *,
    policy: Policy | None = None,
    on_announcement: Callable[[Announce], object] = print_announcement,
    on_line: Callable[[str, str], object] = print_line,
    clock: Clock | None = None,
    until: asyncio.Event | None = None,
) -> int:
    """Run processes until SIGTERM or SIGINT asks to leave, once to drain, twice to leave at once; or until `until` is
    set, which asks to drain as well.

    For the main thread of a program; other arguments, result and errors as of `Supervisor` and its `run`.
    """
    supervisor = Supervisor(
        processes, probe, policy=policy, on_announcement=on_announcement, on_line=on_line, clock=clock
    )
    with _signals_to(supervisor.leave), _leaving_once(until, supervisor):
        return await supervisor.run()


@contextlib.contextmanager
def _leaving_once(until: asyncio.Event | None, supervisor: Supervisor) -> Generator[None]:
    async def leave(event: asyncio.Event) -> None:
        await event.wait()
        supervisor.leave()

    waiting = None if until is None else asyncio.ensure_future(leave(until))
    try:
        yield
    finally:
        if waiting is not None:
            waiting.cancel()


@contextlib.contextmanager
def _signals_to(callback: Callable[[int], object]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, callback, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
