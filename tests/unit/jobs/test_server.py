"""The mesh's own store: what is written for it, where it listens, whose folder it is, and when it answers."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import PlacementError, SetupError
from mesh.jobs.server import embedded
from mesh.jobs.server.embedded import OwnStore, configuration, file_store_bytes, find, locked, prepare, worth_telling
from mesh.supervisor.lifeline import tied
from mesh.topology import GraphJobs
from tests.harness.processes import DEADLINE_S, wait_until

PROGRAM = Path(sysconfig.get_path("scripts")) / "nats-server"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="there is no NATS server for this system")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def running(store: OwnStore) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        tied(store.argv, parent=os.getpid()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(store: OwnStore) -> bool:
    async def ask() -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await store.answers()

    return asyncio.run(ask())


def test_the_configuration_keeps_to_loopback_and_to_the_disk() -> None:
    text = configuration(name="mesh-a", port=20_001, password="secret", store=Path("/data/store"), max_file_bytes=77)
    assert text == (
        'server_name: "mesh-a"\n'
        'listen: "127.0.0.1:20001"\n'
        "max_connections: 1024\n"
        "logtime: false\n"
        "authorization {\n"
        '  user: "mesh"\n'
        '  password: "secret"\n'
        "}\n"
        "jetstream {\n"
        '  store_dir: "/data/store"\n'
        "  max_memory_store: 268435456\n"
        "  max_file_store: 77\n"
        "  sync_interval: always\n"
        "}\n"
    )


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=30))
def test_a_folder_may_be_called_anything(name: str) -> None:
    text = configuration(name="n", port=1, password="p", store=Path("/data") / name, max_file_bytes=1)
    assert len(text.splitlines()) >= 14
    (line,) = [line for line in text.split("\n") if "store_dir" in line]
    quoted = line.partition('"')[2].removesuffix('"')
    assert '"' not in quoted.replace("\\\\", "").replace('\\"', "")


def test_the_server_takes_a_folder_with_quotes_and_backslashes(tmp_path: Path) -> None:
    store = tmp_path / 'a "b" \\c\\n $d #e'
    path = tmp_path / "nats.conf"
    path.write_text(configuration(name='"', port=1, password='\\"$x', store=store, max_file_bytes=1 << 30))
    done = subprocess.run([PROGRAM, "-t", "-c", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_there_is_room_for_every_bound() -> None:
    jobs = GraphJobs(folder="/data", max_queued_bytes=5, dead_max_bytes=7)
    assert file_store_bytes(jobs) == 12 + embedded.RESULTS_BYTES


def test_the_program_is_that_of_this_environment() -> None:
    assert find() == str(PROGRAM)


def test_a_program_on_the_path_is_taken_where_the_environment_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scripts(name: str) -> str:
        return str(tmp_path / name)

    monkeypatch.setattr(sysconfig, "get_path", scripts)
    other = tmp_path / "nats-server"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find() == str(other)
    other.unlink()
    with pytest.raises(SetupError, match=r"program nats-server.*pip install 'inference-mesh.nats.'"):
        find()


def test_what_is_prepared_is_for_nobody_else_and_stays_as_it_is(tmp_path: Path) -> None:
    jobs = GraphJobs(folder=str(tmp_path / "deep/data"))
    with locked(Path(jobs.folder)):
        first = prepare(jobs, "digits")
    inside = tmp_path / "deep/data/nats"
    assert mode(tmp_path / "deep/data") == mode(inside) == 0o700
    assert {mode(path) for path in inside.iterdir()} == {0o600}
    password = first.credentials.read_text()
    assert password.startswith("mesh:")
    assert password.strip().partition(":")[2] in (inside / "nats.conf").read_text()
    assert not any(password.strip().partition(":")[2] in part for part in first.argv)
    with locked(Path(jobs.folder)):
        second = prepare(jobs, "digits")
    assert (second.port, second.credentials.read_text()) == (first.port, password)
    assert second.name != first.name, "else a server of before could be taken for it"


def test_a_port_that_somebody_has_by_now_is_given_up(tmp_path: Path) -> None:
    jobs = GraphJobs(folder=str(tmp_path))
    first = prepare(jobs, "digits")
    with socket.socket() as other:
        other.bind(("127.0.0.1", first.port))
        other.listen()
        second = prepare(jobs, "digits")
        assert second.port != first.port
        assert f"127.0.0.1:{second.port}" in (tmp_path / "nats/nats.conf").read_text()
    assert prepare(jobs, "digits").port == second.port


@pytest.mark.parametrize("port", ["", "none", "80", "99999999999999999999"])
def test_a_port_that_was_never_ours_is_not_taken(port: str, tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats/port").write_text(port)
    assert 20_000 <= prepare(GraphJobs(folder=str(tmp_path)), "digits").port < 30_000


@pytest.mark.parametrize("credentials", ["", "mesh", "mesh:short", "other:0123456789abcdef"])
def test_credentials_that_are_none_are_made_anew(credentials: str, tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats/credentials").write_text(credentials)
    made = prepare(GraphJobs(folder=str(tmp_path)), "digits").credentials
    assert len(made.read_text()) > 40
    assert mode(made) == 0o600


_HOLDER = """
import sys
from pathlib import Path
from mesh.jobs.server.embedded import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_meshes_cannot_share_a_folder_and_a_dead_one_leaves_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(PlacementError) as refused, locked(tmp_path):
            pass
        assert str(refused.value) == f"the data folder {tmp_path} is used by another mesh (process {holder.pid})"
        holder.kill()
        holder.wait(DEADLINE_S)
        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlacementError, match="file/data cannot be used: "), locked(tmp_path / "file/data"):
        pass


def test_the_server_answers_as_itself_and_keeps_its_folder_to_itself(tmp_path: Path) -> None:
    jobs = GraphJobs(folder=str(tmp_path))
    store = prepare(jobs, "digits")
    assert not answers(store)
    with running(store) as first:
        wait_until(lambda: answers(store), "the server did not begin to answer")
        assert not answers(OwnStore(name="another", port=store.port, argv=(), credentials=store.credentials))
        # Another server of this folder waits for this one to be gone: a mesh was killed, and started again at once.
        again = prepare(jobs, "digits")
        assert again.port != store.port
        with running(again):
            assert not answers(again)
            first.kill()
            wait_until(lambda: answers(again), "the next server did not begin to answer")


def test_a_server_that_does_not_get_its_folder_says_so_and_is_set_up_wrongly(tmp_path: Path) -> None:
    store = prepare(GraphJobs(folder=str(tmp_path)), "digits")
    with running(store):
        wait_until(lambda: answers(store), "the server did not begin to answer")
        impatient = [*store.argv[:5], "0.01", *store.argv[6:]]
        done = subprocess.run(impatient, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert f"{tmp_path}/nats/lock: another server has this folder" in done.stderr


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = prepare(GraphJobs(folder=str(tmp_path)), "digits")
    done = subprocess.run([*store.argv[:6], "/no/program"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "/no/program: No such file or directory" in done.stderr


async def test_something_else_that_listens_there_is_no_store() -> None:
    for greeting in (b"HTTP/1.1 400\r\n", b"INFO nonsense\r\n", b"INFO []\r\n", b'INFO {"server_name": "a"}\r\n', b""):

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = greeting) -> None:
            writer.write(said)
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
            port = int(listening.sockets[0].getsockname()[1])
            assert not await OwnStore(name="a", port=port, argv=(), credentials=Path()).answers()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[123] [INF] Server is ready", False),
        ("[123] [DBG] Something", False),
        ("[123] [WRN] Plaintext passwords detected, use nkeys or bcrypt", False),
        ("[123] [WRN] JetStream resource limits exceeded", True),
        ('[123] [FTL] Error listening on port: 127.0.0.1:1, "bind: address already in use"', True),
        ("nats-server: cannot parse", True),
    ],
)
def test_of_the_servers_log_people_see_what_is_wrong(line: str, told: bool) -> None:
    assert worth_telling(line) == told
