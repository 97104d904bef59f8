from __future__ import annotations

import signal

import pytest

from mesh.supervisor.machine import EXIT_FAILED, EXIT_SETUP, Machine, ProcessSpec
from mesh.supervisor.messages import (
    Announce,
    Command,
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
from mesh.supervisor.messages import Event as AnyEvent
from mesh.supervisor.policy import Policy

POLICY = Policy(
    ready_timeout_s=60,
    start_probe_interval_s=0.5,
    probe_interval_s=2,
    hung_after_probes=3,
    backoff_initial_s=1,
    backoff_multiplier=2,
    backoff_max_s=8,
    backoff_jitter=0,
    crash_limit=4,
    stable_after_s=30,
    drain_grace_s=10,
    kill_grace_s=5,
)
PAIR = (ProcessSpec(name="back"), ProcessSpec(name="front", after=("back",)))
TRIO = (*PAIR[:1], ProcessSpec(name="other"), ProcessSpec(name="front", after=("back", "other")))


class Mesh:
    """A machine and its clock. `say` gives the deeds; what was announced and the next waking are kept apart."""

    def __init__(self, *specs: ProcessSpec, policy: Policy = POLICY) -> None:
        self.machine = Machine(specs, policy)
        self.now = 100.0
        self.wake_at: float | None = None
        self.announced: list[Announce] = []

    def say(self, *events: AnyEvent) -> list[Command]:
        deeds: list[Command] = []
        for event in events:
            for command in self.machine.handle(event, self.now):
                match command:
                    case Announce():
                        self.announced.append(command)
                    case WakeAt(when):
                        assert when > self.now, "a waking in the past would spin"
                        self.wake_at = when
                    case _:
                        deeds.append(command)
        return deeds

    def wake(self) -> list[Command]:
        """Move on to the instant that the machine asked for."""
        assert self.wake_at is not None
        self.now, self.wake_at = max(self.now, self.wake_at), None
        return self.say(Woke())

    def wait(self, seconds: float) -> list[Command]:
        """Move on by `seconds`, waking whenever the machine asked for it."""
        until, deeds = self.now + seconds, list[Command]()
        while self.wake_at is not None and self.wake_at <= until:
            deeds += self.wake()
        self.now = until
        return deeds

    def serve(self) -> None:
        """Bring everything up."""
        self.say(Start())
        for name in self.machine.states:
            self.say(Spawned(name, 1, 7), ProbeSucceeded(name, 1))
        assert set(self.machine.states.values()) == {State.READY}

    def state(self, name: str) -> State:
        return self.machine.states[name]

    @property
    def last(self) -> str:
        return str(self.announced[-1])


# ===== Starting =====


def test_the_next_process_starts_when_the_one_before_is_ready() -> None:
    mesh = Mesh(*PAIR)
    assert mesh.say(Start()) == [Spawn("back", 1)]
    assert mesh.say(Spawned("back", 1, 7)) == [Probe("back", 1)]
    assert mesh.say(ProbeSucceeded("back", 1)) == [Spawn("front", 1)]


def test_processes_that_do_not_depend_on_each_other_start_together() -> None:
    mesh = Mesh(*TRIO)
    assert mesh.say(Start()) == [Spawn("back", 1), Spawn("other", 1)]
    assert mesh.say(ProbeSucceeded("other", 1)) == []
    assert mesh.say(ProbeSucceeded("back", 1)) == [Spawn("front", 1)]


def test_a_starting_process_is_probed_until_it_is_ready() -> None:
    mesh = Mesh(*PAIR)
    mesh.say(Start(), Spawned("back", 1, 7))
    assert mesh.say(ProbeFailed("back", 1, "not ready")) == []
    assert mesh.wake_at == mesh.now + POLICY.start_probe_interval_s
    assert mesh.wake() == [Probe("back", 1)]
    assert mesh.state("back") is State.STARTING


def test_no_second_probe_goes_out_while_one_is_under_way() -> None:
    mesh = Mesh(*PAIR)
    mesh.say(Start(), Spawned("back", 1, 7))
    assert mesh.wait(POLICY.ready_timeout_s - 1) == []


def test_that_the_mesh_serves_is_said_once() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    assert mesh.announced[-1] == Announce("", State.READY, "ready")
    mesh.say(Exited("back", 1, 1))
    mesh.wake()
    mesh.say(ProbeSucceeded("back", 2))
    assert [each for each in mesh.announced if not each.name] == [Announce("", State.READY, "ready")]


def test_a_process_that_does_not_get_ready_is_killed_and_started_again() -> None:
    mesh = Mesh(*PAIR)
    mesh.say(Start(), Spawned("back", 1, 7))
    assert mesh.wait(POLICY.ready_timeout_s) == [Kill("back")]
    assert mesh.last == "back: not ready within 60s"
    assert mesh.say(Exited("back", 1, -9)) == []
    assert mesh.state("back") is State.BACKOFF
    assert mesh.wait(1) == [Spawn("back", 2)]


def test_what_never_gets_ready_is_given_up_on() -> None:
    mesh = Mesh(PAIR[0])
    mesh.say(Start())
    for run in range(1, POLICY.crash_limit):
        assert mesh.wait(POLICY.ready_timeout_s) == [Kill("back")]
        assert mesh.say(Exited("back", run, -9)) == []
        assert mesh.wake() == [Spawn("back", run + 1)]
    assert mesh.wait(POLICY.ready_timeout_s) == [Kill("back")]
    assert mesh.say(Exited("back", POLICY.crash_limit, -9)) == [Finish(EXIT_FAILED)]


def test_a_wrong_setup_is_not_tried_again() -> None:
    mesh = Mesh(*TRIO)
    mesh.say(Start(), Spawned("back", 1, 7), Spawned("other", 1, 8))
    assert mesh.say(Exited("back", 1, EXIT_SETUP)) == [Terminate("other")]
    assert mesh.say(Exited("other", 1, 0)) == [Finish(EXIT_SETUP)]
    assert "back: exited with code 2: it is set up wrongly" in map(str, mesh.announced)


def test_once_the_mesh_serves_the_setup_code_is_a_crash_like_any_other() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    mesh.say(Exited("back", 1, -9))
    mesh.wake()
    assert mesh.say(Exited("back", 2, EXIT_SETUP)) == []
    assert mesh.state("back") is State.BACKOFF


# ===== Crashing =====


@pytest.mark.parametrize(
    ("code", "manner"), [(1, "exited with code 1"), (0, "exited with code 0"), (-9, "ended by SIGKILL")]
)
def test_a_process_that_ends_unasked_starts_again_after_a_delay(code: int, manner: str) -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    assert mesh.say(Exited("back", 1, code)) == []
    assert mesh.last == f"back: {manner}; starts again in 1s (crash 1 of 4)"
    assert mesh.wait(0.75) == []
    assert mesh.wait(0.25) == [Spawn("back", 2)]
    assert mesh.state("front") is State.READY


def test_a_process_that_cannot_be_spawned_has_crashed() -> None:
    mesh = Mesh(*PAIR)
    mesh.say(Start())
    mesh.say(SpawnFailed("back", 1, "Too many open files"))
    assert mesh.last == "back: could not be started: Too many open files; starts again in 1s (crash 1 of 4)"
    assert mesh.wait(1) == [Spawn("back", 2)]


def test_delays_grow_with_each_crash_in_a_row() -> None:
    mesh = Mesh(PAIR[0])
    mesh.say(Start())
    for run, delay_s in ((1, 1), (2, 2), (3, 4)):
        mesh.say(Exited("back", run, 1))
        assert mesh.wake_at == mesh.now + delay_s
        assert mesh.wake() == [Spawn("back", run + 1)]


def test_a_process_that_was_stable_has_a_clean_record() -> None:
    mesh = Mesh(PAIR[0])
    mesh.say(Start())
    for run in range(1, 20):
        mesh.say(ProbeSucceeded("back", run))
        mesh.wait(POLICY.stable_after_s)
        mesh.say(Exited("back", run, 1))
        assert mesh.last.endswith("(crash 1 of 4)")
        assert mesh.wait(1) == [Spawn("back", run + 1)]


def test_being_ready_for_a_moment_does_not_clear_the_record() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    for run in range(1, POLICY.crash_limit):
        mesh.wait(POLICY.stable_after_s - 1)
        mesh.say(Exited("back", run, 1))
        mesh.wait(POLICY.backoff_max_s)
        mesh.say(ProbeSucceeded("back", run + 1))
    assert mesh.say(Exited("back", POLICY.crash_limit, 1)) == [Terminate("front")]
    assert mesh.say(Exited("front", 1, 0)) == [Finish(EXIT_FAILED)]


def test_jitter_is_decided_by_the_seed() -> None:
    def delays(seed: int) -> list[Command]:
        machine = Machine(PAIR, Policy(backoff_jitter=1), seed=seed)
        machine.handle(Start(), 0)
        return machine.handle(Exited("back", 1, 1), 0)

    assert delays(1) == delays(1)
    assert delays(1) != delays(2)


# ===== Hanging =====


def test_a_process_that_fails_probes_in_a_row_is_killed_and_started_again() -> None:
    mesh = Mesh(PAIR[0])
    mesh.serve()
    for _ in range(2):
        assert mesh.wait(POLICY.probe_interval_s) == [Probe("back", 1)]
        assert mesh.say(ProbeFailed("back", 1, "no answer in time")) == []
    assert mesh.wait(POLICY.probe_interval_s) == [Probe("back", 1)]
    assert mesh.say(ProbeFailed("back", 1, "no answer in time")) == [Kill("back")]
    assert mesh.last == "back: hung: 3 probes in a row failed, the last with: no answer in time"
    mesh.say(Exited("back", 1, -9))
    assert mesh.wait(1) == [Spawn("back", 2)]


def test_one_good_probe_forgives_the_failed_ones() -> None:
    mesh = Mesh(PAIR[0])
    mesh.serve()
    for _ in range(10):
        mesh.say(ProbeFailed("back", 1, ""), ProbeFailed("back", 1, ""), ProbeSucceeded("back", 1))
    assert mesh.state("back") is State.READY


def test_word_of_an_earlier_run_changes_nothing() -> None:
    mesh = Mesh(*PAIR)
    mesh.say(Start(), Exited("back", 1, 1))
    mesh.wake()
    assert mesh.say(ProbeSucceeded("back", 1), Exited("back", 1, EXIT_SETUP), SpawnFailed("back", 1, "")) == []
    assert mesh.state("back") is State.STARTING


def test_a_killed_process_that_stays_stops_the_mesh() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    assert mesh.say(*[ProbeFailed("back", 1, "")] * 3) == [Kill("back")]
    assert mesh.wait(POLICY.kill_grace_s) == [Probe("front", 1), Terminate("front")]
    assert "back: could not be killed (pid 7)" in map(str, mesh.announced)
    assert mesh.say(Exited("front", 1, 0)) == [Finish(EXIT_FAILED)]


# ===== Leaving =====


def test_the_first_signal_drains_in_reverse_order() -> None:
    mesh = Mesh(*TRIO)
    mesh.serve()
    assert mesh.say(Signal(signal.SIGTERM)) == [Terminate("front")]
    assert mesh.say(Exited("front", 1, 0)) == [Terminate("other"), Terminate("back")]
    assert mesh.say(Exited("other", 1, -15)) == []
    assert mesh.say(Exited("back", 1, 1)) == [Finish(0)]


def test_a_process_that_does_not_drain_is_killed_and_the_exit_code_tells() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    mesh.say(Signal(signal.SIGTERM))
    assert mesh.wait(POLICY.drain_grace_s) == [Kill("front")]
    assert mesh.last == "front: still there after 10s; killed"
    assert mesh.say(Exited("front", 1, -9)) == [Terminate("back")]
    assert mesh.say(Exited("back", 1, 0)) == [Finish(EXIT_FAILED)]


def test_the_second_signal_kills_everything() -> None:
    mesh = Mesh(*TRIO)
    mesh.serve()
    mesh.say(Signal(signal.SIGTERM))
    assert mesh.say(Signal(signal.SIGINT)) == [Kill("front"), Kill("other"), Kill("back")]
    assert mesh.say(Exited("back", 1, -9), Exited("front", 1, -9)) == []
    assert mesh.say(Exited("other", 1, -9)) == [Finish(130)]


def test_the_second_signal_does_not_wait_for_what_cannot_be_killed() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    mesh.say(Signal(signal.SIGTERM), Signal(signal.SIGTERM))
    assert mesh.wait(POLICY.kill_grace_s) == [Finish(143)]


def test_a_third_signal_changes_nothing() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    mesh.say(Signal(signal.SIGTERM), Signal(signal.SIGTERM))
    assert mesh.say(Signal(signal.SIGINT)) == []


def test_a_signal_before_the_start_ends_it_at_once() -> None:
    mesh = Mesh(*PAIR)
    assert mesh.say(Signal(signal.SIGINT)) == [Finish(0)]
    assert mesh.say(Start()) == []


def test_a_signal_while_starting_drains_what_there_is() -> None:
    mesh = Mesh(*PAIR)
    mesh.say(Start(), Spawned("back", 1, 7))
    assert mesh.say(Signal(signal.SIGTERM)) == [Terminate("back")]
    assert mesh.say(ProbeSucceeded("back", 1)) == []
    assert mesh.say(Exited("back", 1, -15)) == [Finish(0)]


def test_a_process_that_waits_for_its_next_start_does_not_hold_up_the_end() -> None:
    mesh = Mesh(PAIR[0])
    mesh.say(Start(), Exited("back", 1, 1))
    assert mesh.say(Signal(signal.SIGTERM)) == [Finish(0)]


def test_a_process_that_crashes_during_the_drain_stays_down() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    mesh.say(Signal(signal.SIGTERM))
    assert mesh.say(Exited("back", 1, 1)) == []
    assert mesh.say(Exited("front", 1, 0)) == [Finish(0)]


def test_while_draining_nobody_is_probed_and_nothing_wakes_in_vain() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    mesh.say(Signal(signal.SIGTERM), ProbeSucceeded("back", 1))
    assert mesh.wait(POLICY.drain_grace_s - 1) == []
    assert mesh.wake_at == 100.0 + POLICY.drain_grace_s


def test_a_signal_during_a_failure_lets_it_drain_and_the_next_one_kills() -> None:
    mesh = Mesh(*TRIO)
    mesh.say(Start(), Exited("back", 1, EXIT_SETUP))
    assert mesh.say(Signal(signal.SIGTERM)) == []
    assert mesh.say(Signal(signal.SIGTERM)) == [Kill("other")]
    assert mesh.say(Exited("other", 1, -9)) == [Finish(143)]


# ===== What it is given =====


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        ((), "0 processes"),
        ((PAIR[0], PAIR[0]), "'back' is empty or given twice"),
        ((ProcessSpec(name=""),), "'' is empty or given twice"),
        ((PAIR[1], PAIR[0]), "front stands after 'back', which is not an earlier process"),
        ((ProcessSpec(name="self", after=("self",)),), "self stands after 'self'"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(specs: tuple[ProcessSpec, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Machine(specs, POLICY)


def test_a_waking_that_comes_a_hair_too_early_is_asked_for_again() -> None:
    mesh = Mesh(*PAIR)
    mesh.serve()
    wake_at = mesh.wake_at
    assert wake_at is not None
    mesh.wake_at, mesh.now = None, wake_at - 1e-9
    assert mesh.say(Woke()) == []
    assert mesh.wake_at == wake_at
