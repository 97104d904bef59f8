"""A command of `mesh` on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager

from tests.harness.meshes import ROOT
from tests.harness.processes import DEADLINE_S, MESH

__all__ = ["Terminal", "on_terminal"]


class Terminal:
    """A running command whose input, output and error output are one terminal of 120 columns."""

    def __init__(self, *arguments: str) -> None:
        self._screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            [MESH, *arguments],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)
        self.shown = ""
        """Everything it wrote so far, with what steers the terminal."""

    def until(self, text: str) -> None:
        """Read on until it has shown a text."""
        ends = time.monotonic() + DEADLINE_S
        while text not in self.shown:
            assert self._read(ends), f"never showed {text!r}: {self.shown!r}"

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Read on until its end; its exit code."""
        ends = time.monotonic() + DEADLINE_S
        while self._read(ends):
            pass
        return self.process.wait(DEADLINE_S)

    def _read(self, ends: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, ends - time.monotonic()))
        if not ready:
            return False
        try:
            self.shown += os.read(self._screen, 65536).decode()
        except OSError:  # how a terminal tells that nobody writes any more
            return False
        return True

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


@contextmanager
def on_terminal(*arguments: str) -> Generator[Terminal]:
    """Run a command on a terminal; it is ended with the block."""
    terminal = Terminal(*arguments)
    try:
        yield terminal
    finally:
        terminal.close()
