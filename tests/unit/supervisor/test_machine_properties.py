"""Rules that hold for every sequence of events, checked against a record of who is alive."""

from __future__ import annotations

import heapq
import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from mesh.supervisor.machine import Machine, ProcessSpec
from mesh.supervisor.messages import (
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

POLICY = Policy(crash_limit=4, hung_after_probes=2)
SPECS = (
    ProcessSpec(name="a"),
    ProcessSpec(name="b"),
    ProcessSpec(name="c", after=("a", "b")),
    ProcessSpec(name="d", after=("c",)),
)
AFTER = {spec.name: spec.after for spec in SPECS}
SETTLED_S = 100_000.0
"""Longer than anything in these tests may take."""


class Record:
    """Follows the commands, and fails on the first that breaks a rule."""

    def __init__(self) -> None:
        self.machine = Machine(SPECS, POLICY)
        self.runs = dict.fromkeys(AFTER, 0)
        self.alive = set[str]()
        self.asked = set[str]()
        """Living processes that were asked to leave, or killed."""
        self.ready = set[str]()
        self.ever_ready = set[str]()
        self.spawns = list[tuple[float, str]]()
        self.finished = False

    def handle(self, event: Event, now: float) -> list[Command]:
        self._note(event)
        commands = self.machine.handle(event, now)
        assert not (self.finished and commands), f"after the finish came {commands}"
        for place, command in enumerate(commands):
            assert not self.finished, f"after the finish came {commands[place:]}"
            self._check(command, now)
        assert self.machine.finished == self.finished
        return commands

    def _note(self, event: Event) -> None:
        match event:
            case Exited(name, run, _) | SpawnFailed(name, run, _) if run == self.runs[name]:
                self.alive.discard(name)
                self.ready.discard(name)
                self.asked.discard(name)
            case ProbeSucceeded(name, run) if run == self.runs[name] and name in self.alive - self.asked:
                self.ready.add(name)
                self.ever_ready.add(name)
            case _:
                pass

    def _check(self, command: Command, now: float) -> None:
        match command:
            case Spawn(name, run):
                assert name not in self.alive, f"{name} is alive"
                assert run == self.runs[name] + 1
                assert self.ever_ready.issuperset(AFTER[name]), f"{name} came before what it stands after"
                if run == 1:
                    assert self.ready.issuperset(AFTER[name])
                self.runs[name] = run
                self.alive.add(name)
                self.spawns.append((now, name))
            case Probe(name, run):
                assert name in self.alive - self.asked
                assert run == self.runs[name]
            case Terminate(name):
                assert name in self.alive - self.asked
                assert all(self.machine.states[other] is State.STOPPED for other in AFTER if name in AFTER[other])
                self.asked.add(name)
            case Kill(name):
                assert name in self.alive
                self.asked.add(name)
                self.ready.discard(name)
            case WakeAt(when):
                assert when > now, "a waking in the past would spin"
            case Finish():
                left = {name for name, state in self.machine.states.items() if state is not State.STOPPED}
                assert not left
                self.finished = True
            case _:
                pass


# ===== Anything at all =====

names = st.sampled_from(sorted(AFTER))
runs = st.integers(1, 4)
events = st.one_of(
    st.just(Start()),
    st.just(Woke()),
    st.builds(Spawned, names, runs, st.just(7)),
    st.builds(SpawnFailed, names, runs, st.just("no memory")),
    st.builds(ProbeSucceeded, names, runs),
    st.builds(ProbeSucceeded, names, runs),
    st.builds(ProbeFailed, names, runs, st.just("not ready")),
    st.builds(Exited, names, runs, st.sampled_from([0, 1, 2, -9])),
)
signals = st.builds(Signal, st.sampled_from([2, 15, 64]))
steps = st.lists(st.tuples(st.one_of(events, events, events, signals), st.sampled_from([0.0, 0.05, 1.0, 70.0])))


@given(steps)
def test_no_sequence_of_events_breaks_a_rule(steps: list[tuple[Event, float]]) -> None:
    record, now = Record(), 0.0
    for event, passed_s in steps:
        now += passed_s
        record.handle(event, now)


@given(steps)
def test_the_same_events_give_the_same_commands(steps: list[tuple[Event, float]]) -> None:
    machines, now = [Machine(SPECS, POLICY, seed=3) for _ in range(2)], 0.0
    for event, passed_s in steps:
        now += passed_s
        first, second = (machine.handle(event, now) for machine in machines)
        assert first == second


@given(steps, st.booleans())
def test_after_a_signal_the_end_is_bounded_though_no_process_does_anything(
    steps: list[tuple[Event, float]], twice: bool
) -> None:
    record, now = Record(), 0.0
    wake_at: float | None = None

    def tell(event: Event) -> None:
        nonlocal wake_at
        for command in record.handle(event, now):
            if isinstance(command, WakeAt):
                wake_at = command.when

    for event, passed_s in steps:
        now += passed_s
        tell(event)
    for _ in range(2 if twice else 1):
        tell(Signal(15))
    asked, ranks = now, 3
    while not record.finished:
        assert wake_at is not None, "nothing would ever happen again"
        now, wake_at = max(now, wake_at), None
        tell(Woke())
    # A process may sit in the time limit of its start, or of an earlier kill, before its turn to drain comes.
    per_rank_s = POLICY.drain_grace_s + POLICY.kill_grace_s
    assert now - asked <= (POLICY.kill_grace_s if twice else ranks * per_rank_s) + 1e-6


# ===== A world =====


class World:
    """Processes that do as chance has it, each in its own time: it is told by commands and answers with events."""

    def __init__(self, seed: int, *, deaths: bool) -> None:
        self.record = Record()
        self.now = 0.0
        self._chance = random.Random(seed)
        self._lifetime_s = self._chance.choice([1, 20, 200]) if deaths else 0
        self._order = itertools.count()
        self._coming: list[tuple[float, int, Event]] = []
        self._wake: int | None = None

    def plan(self, delay_s: float, event: Event) -> int:
        number = next(self._order)
        heapq.heappush(self._coming, (self.now + delay_s, number, event))
        return number

    def delay(self, longest_s: float) -> float:
        return self._chance.uniform(0.001, longest_s)

    def run(self, until: float) -> None:
        while self._coming and self._coming[0][0] <= until and not self.record.finished:
            self.now, number, event = heapq.heappop(self._coming)
            if isinstance(event, Woke) and number != self._wake:
                continue
            if isinstance(event, Exited) and event.name not in self.record.alive:
                continue
            for command in self.record.handle(event, self.now):
                self._obey(command)
        self.now = until

    def _obey(self, command: Command) -> None:
        match command:
            case Spawn(name, run):
                self.plan(0.001, Spawned(name, run, 7))
                if self._lifetime_s:
                    self.plan(self.delay(self._lifetime_s), Exited(name, run, 1))
            case Probe(name, run):
                good = self._chance.random() < 0.8
                self.plan(self.delay(5), ProbeSucceeded(name, run) if good else ProbeFailed(name, run, "no"))
            case Terminate(name):
                self.plan(self.delay(2 * POLICY.drain_grace_s), Exited(name, self.record.runs[name], 0))
            case Kill(name):
                self.plan(self.delay(POLICY.kill_grace_s), Exited(name, self.record.runs[name], -9))
            case WakeAt(when):
                self._wake = self.plan(when - self.now, Woke())
            case _:
                pass


@given(st.integers(0), st.floats(0, 300), st.booleans())
def test_a_world_of_unreliable_processes_always_leaves_when_asked(seed: int, asked_s: float, deaths: bool) -> None:
    world = World(seed, deaths=deaths)
    world.plan(0, Start())
    world.run(asked_s)
    world.plan(0, Signal(15))
    world.run(SETTLED_S)
    assert world.record.finished
    assert not world.record.alive


@given(st.integers(0))
def test_restarts_are_bounded_in_any_stretch_of_time(seed: int) -> None:
    world = World(seed, deaths=True)
    world.plan(0, Start())
    world.run(300)
    for start, name in world.record.spawns:
        near = [
            when for when, other in world.record.spawns if other == name and 0 <= when - start < POLICY.stable_after_s
        ]
        assert len(near) <= POLICY.crash_limit
