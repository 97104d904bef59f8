"""The supervisor with real processes. Everything waits for a condition, under a deadline; nothing sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from mesh.supervisor import Announce, Policy, Process, State, Supervisor, supervise

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

DEADLINE_S = 20.0
"""Far more than anything here takes, on a busy machine, too."""
QUICK = Policy(
    start_probe_interval_s=0.02,
    probe_interval_s=0.05,
    probe_timeout_s=2,
    backoff_initial_s=0.01,
    backoff_max_s=0.05,
    crash_limit=3,
)

# Ready is what answers on its socket: a file would outlive the process that made it.
LISTEN = """
import os, signal, socket, subprocess, sys, time

def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(path):
        os.unlink(path)
    listener.bind(path)
    listener.listen()
    return listener
"""
GOOD = LISTEN + "listener = listen(sys.argv[1])\nsignal.pause()\n"
STUBBORN = LISTEN + (
    "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n    signal.signal(number, signal.SIG_IGN)\n"
    "listener = listen(sys.argv[1])\nwhile True:\n    signal.pause()\n"
)


class Mesh:
    """Processes made of scripts, and what was heard of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self.announced: list[Announce] = []
        self.lines: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def add(self, name: str, script: str, *, after: tuple[str, ...] = (), env: dict[str, str] | None = None) -> None:
        path = self.folder / f"{name}.py"
        path.write_text(textwrap.dedent(script))
        argv = (sys.executable, "-I", "-S", str(path), self.socket(name))
        self.processes.append(Process(name=name, argv=argv, after=after, env=env or {}, cwd=self.folder))

    def socket(self, name: str) -> str:
        return str(self.folder / f"{name}.sock")

    async def probe(self, name: str) -> bool:
        _, writer = await asyncio.open_unix_connection(self.socket(name))
        writer.close()
        await writer.wait_closed()
        return True

    def hear(self, announcement: Announce) -> None:
        self.announced.append(announcement)
        self._changed.set()

    def read(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._changed.set()

    def supervisor(self, policy: Policy = QUICK) -> Supervisor:
        return Supervisor(self.processes, self.probe, policy=policy, on_announcement=self.hear, on_line=self.read)

    @contextlib.asynccontextmanager
    async def running(self, policy: Policy = QUICK) -> AsyncGenerator[tuple[Supervisor, asyncio.Task[int]]]:
        """The mesh, started; whatever the test did, nothing of it is left."""
        supervisor = self.supervisor(policy)
        task = asyncio.create_task(supervisor.run())
        try:
            yield supervisor, task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def ready(self, name: str = "", times: int = 1) -> None:
        await self.until(lambda: self.said().count((name, State.READY)) >= times)

    def said(self) -> list[tuple[str, State]]:
        return [(each.name, each.state) for each in self.announced]

    def pid(self, name: str) -> int:
        return next(each.pid for each in reversed(self.announced) if each.name == name and each.pid)


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


async def code_of(task: asyncio.Task[int]) -> int:
    async with asyncio.timeout(DEADLINE_S):
        return await task


class Gone:
    """Tells whether a process is gone, even where nobody collects its exit code."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def wait(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        try:
            return bool(poll.poll(DEADLINE_S * 1000))
        finally:
            os.close(self._fd)


# ===== Starting and restarting =====


async def test_each_starts_when_the_one_before_is_ready_and_ends_after_the_one_behind(mesh: Mesh) -> None:
    mesh.add("back", GOOD)
    mesh.add("middle", GOOD, after=("back",))
    mesh.add("front", GOOD, after=("middle",))
    async with mesh.running() as (supervisor, task):
        await mesh.ready()
        supervisor.leave()
        assert await code_of(task) == 0
    order = [(name, state) for name, state in mesh.said() if name]
    names = ("back", "middle", "front")
    assert order == [
        *((name, state) for name in names for state in (State.STARTING, State.READY)),
        *((name, state) for name in reversed(names) for state in (State.DRAINING, State.STOPPED)),
    ]


async def test_a_process_killed_from_outside_comes_back_and_its_neighbour_stays(mesh: Mesh) -> None:
    mesh.add("back", GOOD)
    mesh.add("front", GOOD, after=("back",))
    async with mesh.running() as (supervisor, task):
        await mesh.ready()
        first, front = mesh.pid("back"), mesh.pid("front")
        os.kill(first, signal.SIGKILL)
        await mesh.ready("back", times=2)
        assert mesh.pid("back") != first
        assert mesh.pid("front") == front
        assert ("back", State.BACKOFF) in mesh.said()
        supervisor.leave()
        assert await code_of(task) == 0


async def test_a_process_that_hangs_is_killed_and_comes_back(mesh: Mesh) -> None:
    # Stopped by a signal, it still accepts connections: the kernel does. The probe asks for an answer.
    answer = LISTEN + (
        "listener = listen(sys.argv[1])\nwhile True:\n    link, _ = listener.accept()\n    link.send(b'!')\n"
    )
    mesh.add("back", answer)

    async def probe(name: str) -> bool:
        reader, writer = await asyncio.open_unix_connection(mesh.socket(name))
        try:
            return await reader.read(1) == b"!"
        finally:
            writer.close()

    policy = Policy(
        start_probe_interval_s=0.02, probe_interval_s=0.02, probe_timeout_s=0.2, hung_after_probes=2, drain_grace_s=0.1
    )
    supervisor = Supervisor(mesh.processes, probe, policy=policy, on_announcement=mesh.hear, on_line=mesh.read)
    task = asyncio.create_task(supervisor.run())
    await mesh.ready()
    os.kill(mesh.pid("back"), signal.SIGSTOP)
    await mesh.ready("back", times=2)
    assert ("back", State.KILLED) in mesh.said()
    supervisor.leave()
    assert await code_of(task) == 0


async def test_a_crash_loop_stops_the_mesh_with_code_1(mesh: Mesh) -> None:
    mesh.add("back", GOOD)
    mesh.add("front", "raise SystemExit(7)", after=("back",))
    async with mesh.running() as (_, task):
        assert await code_of(task) == 1
    assert mesh.said().count(("front", State.BACKOFF)) == QUICK.crash_limit - 1
    assert mesh.said()[-2:] == [("back", State.STOPPED), ("", State.STOPPED)]


async def test_a_process_that_crashes_less_often_than_that_comes_up(mesh: Mesh) -> None:
    crash = "tries = open('tries', 'ab'); tries.write(b'.'); tries.flush()\nif tries.tell() < 3: os.abort()\n"
    mesh.add("back", LISTEN + crash + "listener = listen(sys.argv[1])\nsignal.pause()\n")
    async with mesh.running() as (supervisor, task):
        await mesh.ready()
        assert (mesh.folder / "tries").read_bytes() == b"..."
        supervisor.leave()
        assert await code_of(task) == 0


async def test_a_process_that_says_its_setup_is_wrong_ends_the_mesh_with_code_2(mesh: Mesh) -> None:
    mesh.add("back", GOOD)
    mesh.add("front", "raise SystemExit(2)", after=("back",))
    async with mesh.running() as (_, task):
        assert await code_of(task) == 2
    assert ("front", State.BACKOFF) not in mesh.said()


async def test_a_program_that_does_not_exist_is_a_wrong_setup(mesh: Mesh) -> None:
    mesh.processes.append(Process(name="back", argv=("no-such-program", "x")))
    async with mesh.running() as (_, task):
        assert await code_of(task) == 2
    assert ("back", "cannot run no-such-program: No such file or directory") in mesh.lines


async def test_a_process_that_cannot_be_spawned_is_given_up_on(mesh: Mesh) -> None:
    mesh.processes.append(Process(name="back", argv=(sys.executable,), cwd=mesh.folder / "gone"))
    async with mesh.running() as (_, task):
        assert await code_of(task) == 1
    assert "could not be started: No such file or directory" in mesh.announced[0].text


# ===== Output =====


async def test_output_comes_by_process_and_line_with_the_last_words_before_the_end(mesh: Mesh) -> None:
    mesh.add("back", "import sys\nprint('one', flush=True)\nsys.stderr.write('two\\nthree')\nraise SystemExit(2)")
    heard: list[object] = []
    supervisor = Supervisor(
        mesh.processes,
        mesh.probe,
        policy=QUICK,
        on_announcement=lambda announcement: heard.append(announcement.state),
        on_line=lambda name, line: heard.append((name, line)),
    )
    assert await supervisor.run() == 2
    heard = heard[heard.index(("back", "one")) :]
    assert heard[:4] == [("back", "one"), ("back", "two"), ("back", "three"), State.STOPPED]


async def test_a_flood_of_output_does_not_block_the_process(mesh: Mesh) -> None:
    # Far more than a pipe holds, and without one end of line.
    flood = "sys.stdout.write('x' * 4_000_000)\nsys.stdout.flush()\nlistener = listen(sys.argv[1])\nsignal.pause()\n"
    mesh.add("back", LISTEN + flood)
    async with mesh.running() as (supervisor, task):
        await mesh.ready()
        supervisor.leave()
        assert await code_of(task) == 0
    assert sum(len(line) for _, line in mesh.lines) == 4_000_000
    assert max(len(line) for _, line in mesh.lines) <= 8192


async def test_a_listener_that_is_gone_does_not_stop_the_mesh(mesh: Mesh) -> None:
    mesh.add("back", "print('hello', flush=True)\n" + GOOD)

    def broken(*_: object) -> None:
        raise BrokenPipeError

    probed = asyncio.Event()

    async def probe(name: str) -> bool:
        await mesh.probe(name)
        probed.set()
        return True

    supervisor = Supervisor(mesh.processes, probe, policy=QUICK, on_announcement=broken, on_line=broken)
    task = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(DEADLINE_S):
        await probed.wait()
    supervisor.leave()
    assert await code_of(task) == 0


async def test_what_is_added_to_the_environment_arrives(mesh: Mesh) -> None:
    mesh.add(
        "back",
        "import os\nprint(os.environ['COLOUR'], 'PATH' in os.environ)\nraise SystemExit(2)",
        env={"COLOUR": "red"},
    )
    assert await mesh.supervisor().run() == 2
    assert ("back", "red True") in mesh.lines


# ===== Leaving =====


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(mesh: Mesh) -> None:
    mesh.add("back", STUBBORN)
    async with mesh.running(Policy(start_probe_interval_s=0.02, drain_grace_s=0.05)) as (supervisor, task):
        await mesh.ready()
        supervisor.leave()
        assert await code_of(task) == 1
    assert ("back", State.KILLED) in mesh.said()


async def test_asked_twice_it_does_not_wait_for_the_drain(mesh: Mesh) -> None:
    mesh.add("back", STUBBORN)
    mesh.add("front", STUBBORN, after=("back",))
    async with mesh.running(Policy(start_probe_interval_s=0.02, drain_grace_s=3600)) as (supervisor, task):
        await mesh.ready()
        supervisor.leave(signal.SIGINT)
        await mesh.until(lambda: ("front", State.DRAINING) in mesh.said())
        supervisor.leave(signal.SIGINT)
        assert await code_of(task) == 130


async def test_cancelling_kills_everything_before_it_returns(mesh: Mesh) -> None:
    mesh.add("back", STUBBORN)
    async with mesh.running() as (_, task):
        await mesh.ready()
        gone = Gone(mesh.pid("back"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone.wait()


async def test_what_a_process_started_ends_with_it(mesh: Mesh) -> None:
    parent = "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import signal; signal.pause()'])\n"
    mesh.add("back", LISTEN + parent + "print(child.pid, flush=True)\nlistener = listen(sys.argv[1])\nsignal.pause()\n")
    async with mesh.running() as (supervisor, task):
        await mesh.ready()
        await mesh.until(lambda: bool(mesh.lines))
        grandchild = Gone(int(mesh.lines[0][1]))
        supervisor.leave()
        assert await code_of(task) == 0
    assert grandchild.wait()


async def test_a_supervisor_runs_once(mesh: Mesh) -> None:
    mesh.add("back", "raise SystemExit(2)")
    supervisor = mesh.supervisor()
    assert await supervisor.run() == 2
    with pytest.raises(RuntimeError, match="once"):
        await supervisor.run()


# ===== Signals =====


async def test_a_signal_to_the_program_drains_and_its_handlers_come_back(mesh: Mesh) -> None:
    mesh.add("back", GOOD)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    task = asyncio.create_task(
        supervise(mesh.processes, mesh.probe, policy=QUICK, on_announcement=mesh.hear, on_line=mesh.read)
    )
    await mesh.ready()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await code_of(task) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
