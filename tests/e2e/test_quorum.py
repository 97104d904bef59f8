"""A join with a quorum whose branches are processes that hang and die: the answer still comes, and is right."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from mesh.context import BranchState, Context
from mesh.errors import DeadlineExceeded
from mesh.handler import Branches
from mesh.tensors import Tensors
from mesh.transports import GrpcTransport, Limits
from mesh.transports.contract import GRAPH
from mesh.transports.grpc import GrpcLink
from nodes.aggregate import SoftVote
from scripts.record_golden import GOLDEN, Golden
from tests.harness.asking import result_of
from tests.harness.meshes import TOPOLOGIES, Result
from tests.harness.processes import DEADLINE_S, MeshUp, StartMesh

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

HALVES = ("left", "right", "top", "bottom")
NAME = "parallel-quorum"
CASE = Golden.read(GOLDEN / "parallel_quorum.json").cases[0]
BEGUN_S = 0.2
"""Time for a call to reach its branches. Where a machine needs longer, less is tested, and nothing fails."""


@pytest.fixture(scope="module")
def quorum(start_shared_mesh: StartMesh) -> MeshUp:
    """Each half of a picture in a process of its own. Tests leave it as they found it: serving."""
    mesh = start_shared_mesh(str(TOPOLOGIES / "parallel_quorum.yaml"), "--placement", "apart")
    mesh.ready()
    return mesh


@asynccontextmanager
async def linked(mesh: MeshUp) -> AsyncGenerator[GrpcLink]:
    link = await GrpcTransport().dial(await asyncio.to_thread(mesh.ready), Limits())
    try:
        yield link
    finally:
        await link.close()


async def ask(link: GrpcLink) -> tuple[Result, dict[str, BranchState]]:
    """How a call ends, and what became of each branch where its report says so."""
    context = Context(timings=[], joins=[]).within(DEADLINE_S)
    result = await result_of(link.handler(GRAPH, NAME), CASE.request, context)
    return result, {one.branch: one.state for join in context.joins or () for one in join.branches}


async def all_four(link: GrpcLink) -> None:
    """Ask until every branch answers again."""
    async with asyncio.timeout(DEADLINE_S):
        while (found := await ask(link))[1] != dict.fromkeys(HALVES, BranchState.ANSWERED):
            pass
    assert found[0] == CASE.result


async def without(link: GrpcLink, *late: str) -> Tensors:
    """What the others say together, by what each of them says alone."""
    said = {node: found async for node, found in link.stream(NAME, CASE.request, Context().within(DEADLINE_S))}
    return await SoftVote(mean="geometric").aggregate(
        Branches({half: said[half] for half in HALVES if half not in late}), Context()
    )


@asynccontextmanager
async def hanging(mesh: MeshUp, *workers: str) -> AsyncGenerator[None]:
    """Processes that take calls and do not answer, until the end of the block."""
    stopped = [mesh.pid(worker) for worker in workers]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


async def test_a_branch_that_hangs_is_left_out_at_the_deadline(quorum: MeshUp) -> None:
    async with linked(quorum) as link:
        await all_four(link)
        expected = await without(link, "top")
        async with hanging(quorum, "top"):
            answer, states = await ask(link)
        assert answer == expected
        assert states == {**dict.fromkeys(HALVES, BranchState.ANSWERED), "top": BranchState.LATE}
        await all_four(link)


async def test_a_branch_that_is_killed_with_the_call_in_its_hands_is_left_out_at_once(quorum: MeshUp) -> None:
    async with linked(quorum) as link:
        await all_four(link)
        expected = await without(link, "left")
        killed = quorum.pid("left")
        os.kill(killed, signal.SIGSTOP)
        asking = asyncio.create_task(ask(link))
        await asyncio.wait([asking], timeout=BEGUN_S)
        os.kill(killed, signal.SIGKILL)
        answer, states = await asking
        assert answer == expected
        assert states.pop("left") in (BranchState.FAILED, BranchState.LATE)
        assert states == dict.fromkeys(("right", "top", "bottom"), BranchState.ANSWERED)
        await asyncio.to_thread(quorum.until, "left: ready", 2)
        assert quorum.pid("left") != killed
        await all_four(link)


async def test_fewer_than_the_quorum_are_no_answer_and_the_error_says_who_is_missing(quorum: MeshUp) -> None:
    async with linked(quorum) as link:
        await all_four(link)
        async with hanging(quorum, "right", "bottom"):
            error, _ = await ask(link)
        assert isinstance(error, DeadlineExceeded)
        assert error.node == "answer"
        assert "2 of 3" in error.text
        assert "right" in error.text
        assert "bottom" in error.text
        await all_four(link)


async def test_every_call_is_answered_while_branches_die_one_after_another(quorum: MeshUp) -> None:
    async with linked(quorum) as link:
        await all_four(link)
        rights = {half: await without(link, half) for half in HALVES}
        for half in HALVES:
            runs = len([line for line in quorum.lines if f" {half}: ready" in line])
            os.kill(quorum.pid(half), signal.SIGKILL)
            for answer, states in await asyncio.gather(*(ask(link) for _ in range(8))):
                whole = states.get(half) is BranchState.ANSWERED
                assert answer == (CASE.result if whole else rights[half]), (half, states)
            await asyncio.to_thread(quorum.until, f" {half}: ready", runs + 1)
            await all_four(link)
