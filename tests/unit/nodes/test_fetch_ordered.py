from __future__ import annotations

import asyncio

import pytest

from mesh.testing import settle
from nodes.fetch.ordered import in_order


class Gates:
    """Work that ends when the test says so."""

    def __init__(self, count: int) -> None:
        self.gates = [asyncio.get_running_loop().create_future() for _ in range(count)]
        self.begun: list[int] = []
        self.cancelled: list[int] = []

    async def work(self, index: int) -> str:
        self.begun.append(index)
        try:
            return await self.gates[index]
        except asyncio.CancelledError:
            self.cancelled.append(index)
            raise


async def test_answers_come_in_the_order_of_the_items() -> None:
    gates = Gates(3)
    task = asyncio.create_task(in_order(gates.work, range(3), 3))
    await settle()
    for index in (2, 0, 1):
        gates.gates[index].set_result(str(index))
        await settle()
    assert await task == ["0", "1", "2"]


async def test_no_more_run_at_once_than_stated() -> None:
    gates = Gates(5)
    task = asyncio.create_task(in_order(gates.work, range(5), 2))
    await settle()
    assert gates.begun == [0, 1]
    gates.gates[1].set_result("")
    await settle()
    assert gates.begun == [0, 1, 2]
    for gate in gates.gates:
        if not gate.done():
            gate.set_result("")
    assert len(await task) == 5


async def test_the_first_failure_in_order_is_raised_and_later_work_is_cancelled() -> None:
    gates = Gates(6)
    task = asyncio.create_task(in_order(gates.work, range(6), 4))
    await settle()
    gates.gates[2].set_exception(ValueError("second"))
    await settle()
    assert gates.cancelled == [3]
    assert not task.done()
    gates.gates[1].set_exception(ValueError("first"))
    await settle()
    gates.gates[0].set_result("")
    with pytest.raises(ValueError, match="first"):
        await task
    assert gates.begun == [0, 1, 2, 3]


async def test_cancelled_it_cancels_all() -> None:
    gates = Gates(3)
    task = asyncio.create_task(in_order(gates.work, range(3), 2))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(gates.cancelled) == [0, 1]
    assert gates.begun == [0, 1]


async def test_nothing_gives_nothing() -> None:
    assert await in_order(Gates(0).work, [], 1) == []
