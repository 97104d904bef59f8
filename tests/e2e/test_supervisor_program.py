"""A supervisor in a process of its own: signals from a terminal, and what is left of it when it is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

DEADLINE_S = 20.0
"""Far more than anything here takes, on a busy machine, too."""

PROGRAM = """
import asyncio, sys
from pathlib import Path

from mesh.supervisor import Policy, Process, supervise

async def probe(name):
    return Path(f"{name}.ready").exists()

processes, after = [], ()
for name in sys.argv[1:]:
    processes.append(Process(name=name, argv=(sys.executable, "-I", "-S", f"{name}.py", f"{name}.ready"), after=after))
    after = (name,)
sys.exit(asyncio.run(supervise(
    processes,
    probe,
    policy=Policy(start_probe_interval_s=0.02, drain_grace_s=3600),
    on_announcement=lambda it: print(it.name or "mesh", it.state, it.pid, flush=True),
    on_line=lambda name, line: print(name, line, 0, flush=True),
)))
"""
GOOD = """
import signal, sys
open(sys.argv[1], "w").close()
signal.pause()
"""
DEAF = """
import ctypes, os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.close(0)
open(sys.argv[1], "w").close()
print("stuck", flush=True)
ctypes.PyDLL(None).sleep(1000)  # in foreign code, with the interpreter's lock held: no thread of it ever runs again
"""


class Program:
    """The supervisor's process: the leader of a process group, as a shell starts it in a terminal."""

    def __init__(self, folder: Path, scripts: dict[str, str]) -> None:
        for name, script in {**scripts, "program": PROGRAM}.items():
            (folder / f"{name}.py").write_text(script)
        self.process = subprocess.Popen(
            [sys.executable, "program.py", *scripts],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._pids: dict[str, int] = {}

    def until(self, name: str, what: str) -> None:
        """Read what it says until then; the test's own time limit bounds it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said_name, said, pid = line.split()
            if int(pid):
                self._pids[said_name] = os.pidfd_open(int(pid)) if said == "starting" else self._pids[said_name]
            if (said_name, said) == (name, what):
                return
        raise AssertionError(f"it ended before {name} was {what}")

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def is_gone(self, name: str) -> bool:
        """Waits until the process is gone, whether or not anybody collects its exit code; false after the deadline."""
        poll = select.poll()
        poll.register(self._pids[name], select.POLLIN)
        return bool(poll.poll(DEADLINE_S * 1000))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for pidfd in self._pids.values():
            os.close(pidfd)


Start = Callable[[dict[str, str]], Program]


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    programs: list[Program] = []

    def start(scripts: dict[str, str]) -> Program:
        programs.append(Program(tmp_path, scripts))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def test_ctrl_c_in_a_terminal_drains_once_and_in_order(start: Start) -> None:
    program = start({"back": GOOD, "front": GOOD})
    program.until("mesh", "ready")
    os.killpg(program.process.pid, signal.SIGINT)  # a terminal signals the whole group
    program.until("front", "stopped")
    program.until("back", "draining")
    program.until("back", "stopped")
    assert program.wait() == 0


def test_the_second_signal_leaves_at_once(start: Start) -> None:
    program = start({"back": DEAF})
    program.until("mesh", "ready")
    program.process.send_signal(signal.SIGTERM)
    program.until("back", "draining")
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert program.is_gone("back")


def test_no_orphan_survives_a_supervisor_killed_by_sigkill(start: Start) -> None:
    program = start({"back": GOOD, "front": DEAF})
    program.until("front", "stuck")
    program.process.kill()
    assert program.wait() == -signal.SIGKILL
    assert program.is_gone("back")
    assert program.is_gone("front")


def test_no_orphan_survives_that_has_only_just_been_spawned(start: Start) -> None:
    quiet = DEAF.replace('print("stuck", flush=True)', "")  # a write to a pipe that nobody reads would end it
    program = start({"back": quiet})
    program.until("back", "starting")
    program.process.kill()
    assert program.is_gone("back")
