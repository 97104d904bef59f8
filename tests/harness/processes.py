"""`mesh up` as a process of its own, started, watched and ended as a person would from a terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.harness.meshes import ROOT

__all__ = ["DEADLINE_S", "MESH", "MeshUp", "StartMesh", "mesh_processes", "run_mesh", "wait_until"]

MESH = str(Path(sysconfig.get_path("scripts")) / "mesh")
"""The installed command."""
DEADLINE_S = 60.0
"""Far more than anything here takes, also on a busy machine; nothing is ever waited for longer."""
_STARTING = re.compile(r"mesh: (\S+): starting \(pid (\d+)\)")


class MeshUp:
    """A running `mesh up`.

    Args:
        arguments: Of the command. The gateway listens where the system chooses, unless they say otherwise.
        folder: Its folder for temporary files: sockets, launch files.
        engine: What speaks gRPC in it, unless the arguments say; the file's own where left empty.
    """

    def __init__(self, *arguments: str, folder: Path, engine: str = "") -> None:
        self.folder = folder
        self.lines: list[str] = []
        """What it said so far."""
        self._pidfds: dict[str, list[tuple[int, int]]] = {}
        self._heard = threading.Condition()
        self._silent = False
        listen = () if "--listen" in arguments else ("--listen", "grpc://127.0.0.1:0")
        if engine and "--engine" not in arguments:
            arguments = (*arguments, "--engine", engine)
        self.process = subprocess.Popen(
            [MESH, "up", *arguments, *listen],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # as a shell starts it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.lines.append(line.rstrip("\n"))
                if matched := _STARTING.match(line):
                    pid = int(matched[2])
                    self._pidfds.setdefault(matched[1], []).append((pid, os.pidfd_open(pid)))
                self._heard.notify_all()
        with self._heard:
            self._silent = True
            self._heard.notify_all()

    def until(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait for a line that matches, for the so-manieth time."""
        compiled = re.compile(pattern)

        def found() -> list[re.Match[str]]:
            return [matched for line in self.lines if (matched := compiled.search(line))]

        with self._heard:
            self._heard.wait_for(lambda: self._silent or len(found()) >= times, DEADLINE_S)
            matches = found()
        assert len(matches) >= times, f"never said {pattern!r}:\n" + "\n".join(self.lines)
        return matches[times - 1]

    def ready(self) -> str:
        """Wait until the whole mesh serves; the gateway's address."""
        self.until(r"^mesh: ready$")
        return self.until(r"answers at (\S+)$")[1]

    def pid(self, name: str) -> int:
        """The process id of the newest run of a process."""
        return self._pidfds[name][-1][0]

    def pids(self, worker: str) -> set[int]:
        """The newest process ids of a worker's replicas."""
        return {runs[-1][0] for name, runs in self._pidfds.items() if re.fullmatch(rf"{worker}(-\d+)?", name)}

    @property
    def names(self) -> list[str]:
        """The processes that it has started so far."""
        return list(self._pidfds)

    def kill(self, name: str) -> bool:
        """SIGKILL to the newest run of a process; whether it was still there. Hits no other that has its id now."""
        if name in self._pidfds:
            with suppress(ProcessLookupError):
                pidfd = self._pidfds[name][-1][1]
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        return False

    def all_gone(self) -> bool:
        """Wait until no process that it ever started is left; false when one still is after the deadline."""
        return all(_ended(pidfd) for runs in self._pidfds.values() for _, pidfd in runs)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and its last words; its exit code."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def close(self) -> None:
        """End it and whatever is left of it."""
        self.process.kill()
        self.process.wait()
        for runs in self._pidfds.values():
            for _, pidfd in runs:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        self._reader.join(DEADLINE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        for runs in self._pidfds.values():
            for _, pidfd in runs:
                os.close(pidfd)


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(DEADLINE_S * 1000))


StartMesh = Callable[..., MeshUp]
"""Starts `mesh up` with these arguments."""


@contextmanager
def mesh_processes(engine: str = "") -> Generator[StartMesh]:
    """A way to start meshes, over an engine unless they say which, that are all ended in the end."""
    with ExitStack() as lifetime:

        def start(*arguments: str) -> MeshUp:
            # Short, because a socket's path may not be long.
            folder = lifetime.enter_context(TemporaryDirectory(prefix="mt-", dir="/tmp"))
            started = MeshUp(*arguments, folder=Path(folder), engine=engine)
            lifetime.callback(started.close)
            return started

        yield start


def run_mesh(*arguments: str, text: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of `mesh` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mesh.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=text,
        timeout=DEADLINE_S,
        check=False,
    )


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that nobody tells: a file written by another process.

    Raises:
        AssertionError: It does not hold within the deadline.
    """
    ends = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.005)
