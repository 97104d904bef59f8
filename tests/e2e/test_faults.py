"""What becomes of calls when processes die, deadlines pass, callers leave and the mesh is told to go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mesh.context import Context
from mesh.errors import DeadlineExceeded, Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors
from tests.harness.asking import asking, result_of
from tests.harness.meshes import Result
from tests.harness.processes import DEADLINE_S, MeshUp, StartMesh, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

T = TypeVar("T")

SLOW = str(Path(__file__).parent / "meshes" / "slow.yaml")
NODES = ("one", "two", "three", "four", "five")
FAR_OFF_S = 20 * DEADLINE_S
"""A deadline that is not what ends a call here."""


class Story:
    """One request, and what its nodes wrote down about it."""

    def __init__(self, log: Path, takes: dict[str, float | str]) -> None:
        self._log = log
        self.request = Tensors({"script": [json.dumps({"log": str(log), "takes": takes})]})

    def lines(self) -> list[str]:
        """What happened so far."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    async def until(self, line: str, times: int = 1) -> None:
        """Wait until something has happened."""
        what = f"never so often: {line}"
        await asyncio.to_thread(wait_until, lambda: self.lines().count(line) >= times, what)

    def open_gate(self) -> None:
        """Let nodes go that wait at the gate."""
        self._log.with_suffix(".open").touch()


Tell = Callable[..., Story]
"""Makes a story of how long each node takes."""


@pytest.fixture
def story(tmp_path: Path) -> Tell:
    def tell(**takes: float | str) -> Story:
        return Story(tmp_path / f"{len(list(tmp_path.iterdir()))}.log", takes)

    return tell


@pytest.fixture(scope="module")
def spread(start_shared_mesh: StartMesh) -> MeshUp:
    """Five nodes in three processes, each with one replica. Tests leave it as they found it: serving."""
    mesh = start_shared_mesh(SLOW, "--placement", "spread")
    mesh.ready()
    return mesh


@asynccontextmanager
async def calling(mesh: MeshUp) -> AsyncGenerator[Handler[Tensors]]:
    async with asking(await asyncio.to_thread(mesh.ready), "slow") as ask:
        yield ask


def call(ask: Handler[Tensors], story: Story, seconds: float = FAR_OFF_S) -> Coroutine[Any, Any, Result]:
    return result_of(ask, story.request, Context(timings=[]).within(seconds))


async def soon(waited: Awaitable[T]) -> T:
    """Await something that must not take until the deadlines of calls."""
    async with asyncio.timeout(DEADLINE_S):
        return await waited


async def answered(ask: Handler[Tensors], story: Story) -> None:
    """Ask until there is an answer, as a caller does who is told that it makes sense to try again."""
    async with asyncio.timeout(DEADLINE_S):
        while not isinstance(result := await call(ask, story), Tensors):
            assert isinstance(result, Unavailable), result
            assert result.retryable


async def refused(ask: Handler[Tensors], story: Story) -> Result:
    """Ask until there is no answer any more; the error."""
    while isinstance(result := await call(ask, story), Tensors):
        pass
    return result


# ===== Deadlines and cancelling =====


async def test_a_deadline_is_one_budget_for_the_whole_graph(spread: MeshUp, story: Tell) -> None:
    async with calling(spread) as ask:
        # On a machine that is busy enough a call may run out of time before its first node begins: that tells nothing.
        for _ in range(50):
            five = story(**dict.fromkeys(NODES, 0.04))
            assert isinstance(await call(ask, five, 0.1), DeadlineExceeded)
            if five.lines():
                break
        else:
            pytest.fail("not one call of fifty began in time")
        # The node that was at work was told to stop, in whatever process it runs; 5 x 40 ms do not fit into 100.
        await asyncio.to_thread(wait_until, lambda: five.lines()[-1].endswith("cancelled"), "nobody was told")
        seen = five.lines()
        assert "five began" not in seen
        # Calls after it go the same way through every process: by their end, anything left of it would have begun.
        await answered(ask, story())
        assert five.lines() == seen


@pytest.mark.parametrize("node", ["one", "two", "five"])
async def test_a_caller_that_leaves_cancels_the_node_that_is_at_work(spread: MeshUp, story: Tell, node: str) -> None:
    async with calling(spread) as ask:
        waiting = story(**{node: "gate"})
        leaving = asyncio.create_task(call(ask, waiting))
        await waiting.until(f"{node} began")
        leaving.cancel()
        await waiting.until(f"{node} cancelled")
        assert waiting.lines()[-1] == f"{node} cancelled"
        assert (await asyncio.wait([leaving]))[0].pop().cancelled()


# ===== Crashes =====


async def test_calls_in_flight_in_a_worker_that_is_killed_end_at_once_and_it_comes_back(
    spread: MeshUp, story: Tell
) -> None:
    async with calling(spread) as ask:
        waiting = story(two="gate")
        calls = [asyncio.create_task(call(ask, waiting)) for _ in range(8)]
        await waiting.until("two began", times=8)
        killed = spread.pid("back")
        os.kill(killed, signal.SIGKILL)
        for result in await soon(asyncio.gather(*calls)):
            assert isinstance(result, Unavailable)
            assert result.node == "two"
        await asyncio.to_thread(spread.until, r"back: ready", 2)
        assert spread.pid("back") != killed
        await answered(ask, story())


async def test_calls_in_flight_in_a_gateway_that_is_killed_end_at_once_and_it_comes_back(
    spread: MeshUp, story: Tell
) -> None:
    async with calling(spread) as ask:
        waiting = story(two="gate")
        calls = [asyncio.create_task(call(ask, waiting)) for _ in range(8)]
        await waiting.until("two began", times=8)
        os.kill(spread.pid("front"), signal.SIGKILL)
        for result in await soon(asyncio.gather(*calls)):
            assert isinstance(result, Unavailable)
        # Nobody is left to answer to: the worker behind stops its part.
        await waiting.until("two cancelled", times=8)
        # It comes back at the very port that the system had chosen.
        await answered(ask, story())


async def test_a_replica_answers_for_the_one_that_is_killed(start_mesh: StartMesh, story: Tell) -> None:
    mesh = start_mesh(SLOW, "--placement", "twice")
    async with calling(mesh) as ask:
        waiting = story(two="gate")
        context = [Context(timings=[]).within(FAR_OFF_S) for _ in range(8)]
        calls = [asyncio.create_task(result_of(ask, waiting.request, one)) for one in context]
        await waiting.until("two began", times=8)
        left = mesh.pid("work-1")
        os.kill(mesh.pid("work-0"), signal.SIGKILL)
        await asyncio.to_thread(mesh.until, "work-0: ended by SIGKILL")
        during = await soon(call(ask, story()))
        assert isinstance(during, Tensors), during
        waiting.open_gate()
        assert all(isinstance(result, Tensors) for result in await soon(asyncio.gather(*calls)))
        assert {timing.pid for one in context for timing in one.timings or ()} == {left}


def test_no_worker_outlives_a_supervisor_that_is_killed(start_mesh: StartMesh) -> None:
    mesh = start_mesh(SLOW, "--placement", "spread")
    mesh.ready()
    mesh.signal(signal.SIGKILL)
    assert mesh.wait() == -signal.SIGKILL
    assert mesh.all_gone()


# ===== Leaving =====


async def test_a_call_in_flight_when_the_mesh_is_told_to_leave_is_finished(start_mesh: StartMesh, story: Tell) -> None:
    mesh = start_mesh(SLOW, "--placement", "spread", "--grace", "1h")
    async with calling(mesh) as ask:
        waiting = story(two="gate")
        accepted = asyncio.create_task(call(ask, waiting))
        await waiting.until("two began")
        mesh.signal(signal.SIGTERM)
        await asyncio.to_thread(mesh.until, "front: draining")
        assert isinstance(await soon(refused(ask, story())), Unavailable)
        waiting.open_gate()
        assert isinstance(await soon(accepted), Tensors)
    assert await asyncio.to_thread(mesh.wait) == 0
    assert waiting.lines()[-1] == "five ended"
    assert mesh.all_gone()
    assert list(mesh.folder.iterdir()) == []


def test_the_second_ctrl_c_leaves_at_once(start_mesh: StartMesh, story: Tell) -> None:
    mesh = start_mesh(SLOW, "--placement", "spread", "--grace", "1h")

    async def ask_and_interrupt_twice() -> Result:
        async with calling(mesh) as ask:
            waiting = story(two="gate")
            accepted = asyncio.create_task(call(ask, waiting))
            await waiting.until("two began")
            mesh.signal(signal.SIGINT)
            await asyncio.to_thread(mesh.until, "front: draining")
            mesh.signal(signal.SIGINT)
            return await soon(accepted)

    assert isinstance(asyncio.run(ask_and_interrupt_twice()), Unavailable)
    assert mesh.wait() == 128 + signal.SIGINT
    assert mesh.all_gone()
    assert list(mesh.folder.iterdir()) == []
