"""One operating system process under the supervisor: how it is started, ended and listened to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

from mesh.supervisor.lifeline import tied
from mesh.supervisor.lines import LineSplitter
from mesh.supervisor.machine import ProcessSpec

__all__ = ["Child", "Process"]

_LAST_WORDS_S = 1.0
"""How long after its end a process's output is listened to, should something that got away still hold it open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(ProcessSpec):
    """A process that the supervisor runs."""

    argv: tuple[str, ...]
    """The program, found on the PATH where it has no slash, and its arguments."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Added to the supervisor's own environment."""
    cwd: Path | None = None
    """Where it runs; None for where the supervisor does."""


class Child(asyncio.SubprocessProtocol):
    """A running process, tied to this one (see `mesh.supervisor.lifeline`).

    It leads a session of its own: so Ctrl-C in a terminal reaches the supervisor alone, which then drains in order, and
    SIGKILL reaches whatever the process started as well. Its output is read all the time, and never makes it wait.
    """

    def __init__(self, on_line: Callable[[str], object]) -> None:
        self.pid = 0
        self._on_line = on_line
        self._lines = LineSplitter()
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._silent = asyncio.Event()
        self._closed = asyncio.Event()

    @classmethod
    async def start(cls, process: Process, on_line: Callable[[str], object]) -> Self:
        """Start it.

        Args:
            process: What to run.
            on_line: Given each line of its output and error output, without the line's end. It must not raise.

        Raises:
            OSError: It cannot be started now, or its directory does not exist.
        """
        transport, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(on_line),
            *tied(process.argv, parent=os.getpid()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # one pipe, so that lines keep their order
            env={**os.environ, **process.env},
            cwd=process.cwd,
            start_new_session=True,
        )
        child.pid = transport.get_pid()
        child._transport = transport
        return child

    async def wait(self) -> int:
        """Wait for its end and its last words, and give back everything it held; its exit code as in `subprocess`."""
        transport = self._transport
        assert transport is not None
        try:
            await self._exited.wait()
            self._kill_session()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._silent.wait()
        finally:
            transport.close()
        await self._closed.wait()
        return cast("int", transport.get_returncode())

    def terminate(self) -> None:
        """Ask it to leave (SIGTERM); harmless when it has left."""
        # Not by the transport: it asks whether the process lives in a way that can take the exit code from the waiter.
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever it started (SIGKILL); harmless when it has ended."""
        if not self._exited.is_set():
            self._kill_session()

    def _kill_session(self) -> None:
        # Right after its end, too: its number stays taken while anything of its session is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    # ===== asyncio.SubprocessProtocol =====

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Output came."""
        for line in self._lines.feed(data):
            self._on_line(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Its output, or its standard input, was closed."""
        if fd == 1:
            for line in self._lines.finish():
                self._on_line(line)
            self._silent.set()

    def process_exited(self) -> None:
        """It ended."""
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended, and every pipe is closed."""
        self._closed.set()
