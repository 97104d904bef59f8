from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.supervisor import EXIT_SETUP
from mesh.supervisor.lifeline import tied

pytestmark = pytest.mark.processes

linux = pytest.mark.skipif(sys.platform != "linux", reason="a setting of the Linux kernel")
DEADLINE_S = 20.0


def run(*argv: str, parent: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tied(argv, parent=parent), capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def holder(tmp_path: Path, *, before: str = "", grace_s: float = 3600) -> subprocess.Popen[bytes]:
    """A process that holds its lifeline and has said so."""
    script = tmp_path / "holder.py"
    script.write_text(
        "import os, signal, sys, threading\n"
        "from mesh.supervisor import hold_lifeline\n"
        f"{before}\n"
        f"hold_lifeline(grace_s={grace_s})\n"
        "assert sys.stdin.read() == ''  # it is the lifeline's now\n"
        "print('held', flush=True)\n"
        "threading.Event().wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def leave(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    process.stdin.close()
    return process.wait(DEADLINE_S)


@linux
def test_a_tied_program_is_the_process_itself() -> None:
    ended = run(sys.executable, "-c", "import os, sys; print(sys.argv, os.getppid())", "a b", parent=os.getpid())
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"['-c', 'a b'] {os.getpid()}\n", "")


@linux
def test_a_program_whose_parent_died_before_it_was_tied_does_not_run() -> None:
    ended = run(sys.executable, "-c", "print('ran')", parent=os.getppid())
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


@linux
def test_a_program_that_cannot_be_run_says_so_and_is_a_wrong_setup() -> None:
    ended = run("no-such-program", parent=os.getpid())
    assert (ended.returncode, ended.stderr) == (EXIT_SETUP, "cannot run no-such-program: No such file or directory\n")


def test_the_end_of_standard_input_asks_the_process_to_leave(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert process.poll() is None
    assert leave(process) == -signal.SIGTERM


def test_a_process_that_stays_is_ended(tmp_path: Path) -> None:
    process = holder(tmp_path, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)", grace_s=0.01)
    assert leave(process) == -signal.SIGKILL


def test_a_process_may_drain_in_its_own_way(tmp_path: Path) -> None:
    process = holder(tmp_path, before="signal.signal(signal.SIGTERM, lambda *_: os._exit(5))")
    assert leave(process) == 5
