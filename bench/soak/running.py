"""A soak from its start to what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.soak.killing import Victims, plan
from bench.soak.ledger import Ledger
from bench.soak.load import Load, clients
from bench.soak.told import found

__all__ = ["soak"]

_TELL_S = 15.0


async def soak(
    jobs: int,
    kills: Mapping[str, int],
    *,
    seed: int,
    in_flight: int = 200,
    latest_s: float = 1.5,
    restart: bool = True,
) -> dict[str, Any]:
    """Run jobs and kill what runs them.

    Args:
        jobs: How many are submitted.
        kills: How many of each of `bench.soak.killing.KINDS`.
        seed: Of the plan of kills, and of keys.
        in_flight: Jobs at once whose end was not seen yet.
        latest_s: How long after its moment a kill comes, at the most.
        restart: Whether the mesh is ended and started anew before every job is looked at once more.

    Returns:
        What was found; see `bench.soak.told`.
    """
    ledger, planned = Ledger(jobs), plan(kills, jobs, seed, latest_s=latest_s)
    # Short, because a socket's path may not be long.
    with TemporaryDirectory(prefix="soak-", dir="/tmp") as folder:
        victims = Victims(Path(folder))
        try:
            await victims.start()
            async with clients(victims.address) as made:
                load = Load(ledger, made, in_flight=in_flight, seed=seed)
                began = time.monotonic()
                suffering = asyncio.create_task(victims.suffer(planned, ledger))
                telling = asyncio.create_task(_tell(ledger, victims, began))
                loading = asyncio.create_task(load.run())
                try:
                    await asyncio.wait((suffering, telling, loading), return_when=asyncio.FIRST_COMPLETED)
                    for task in (suffering, telling):  # neither ends before the load, unless it fails
                        if task.done():
                            task.result()
                    await loading
                    await victims.suffered.wait()
                finally:
                    await _cancelled(suffering, telling, loading)
                if restart:
                    await victims.restart()
                await load.look_again()
            await victims.stop()
        finally:
            victims.close()
    told = found(ledger, victims.killed, began=began, unanswered=load.unanswered)
    return told | {"seed": seed, "in_flight": in_flight, "left": victims.left, "survivors": victims.survivors}


async def _tell(ledger: Ledger, victims: Victims, began: float) -> None:
    while True:
        await asyncio.sleep(_TELL_S)
        seconds = time.monotonic() - began
        kills = ", ".join(f"{count} {kind}" for kind, count in sorted(victims.kills.items()))
        print(
            f"{seconds:6.0f} s: {ledger.acknowledged:,} acknowledged, {ledger.over:,} over, "
            f"{sum(ledger.faults.values())} faults; killed: {kills or 'nothing'}",
            flush=True,
        )


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
