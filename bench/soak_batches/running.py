"""One batch through a plan of kills, from its start to what is found in its output folder."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blake3 import blake3

from bench.soak.killing import Kill, plan
from bench.soak_batches.node import executions
from bench.soak_batches.rows import look_at, write_input
from bench.soak_batches.standing import WORKERS, ByCommand, ByMesh, Running, Work
from bench.soak_batches.tree import Tree

__all__ = ["WAYS", "soak"]

WAYS: Mapping[str, tuple[Callable[[Work], Running], str, Mapping[str, float]]] = {
    "mesh batch run, resumed": (
        ByCommand,
        "rows.parquet",
        {"worker": 0.3, "coordinator": 0.25, "nats-server": 0.2, "everything": 0.25},
    ),
    "mesh up": (
        ByMesh,
        "rows.csv",
        {"worker": 0.25, "coordinator": 0.25, "nats-server": 0.15, "gateway": 0.1, "everything": 0.25},
    ),
}
"""How a batch is run -> what runs it, over which file, and what is killed, by its share of all kills. `coordinator` is
the worker that looks after the batch just then, `worker` any, `everything` the supervisor, which takes all along."""
SHARD_ROWS, REQUEST_ROWS = 500, 125
TOPOLOGY = Path(__file__).parent / "soak_batches.yaml"
_LATEST_S = 0.6
_POLL_S = 0.02
_TELL_S = 15.0
_LONGEST_S = 1200.0


async def soak(way: str, rows: int, kills: int, *, seed: int) -> dict[str, Any]:
    """Run a batch and kill what runs it.

    Args:
        way: One of `WAYS`.
        rows: Of the input.
        kills: How many.
        seed: Of the plan of kills.

    Returns:
        What was found.
    """
    kind, name, shares = WAYS[way]
    shards = -(-rows // SHARD_ROWS)
    counts = {one: int(kills * share) for one, share in shares.items()}
    counts["worker"] += kills - sum(counts.values())
    with TemporaryDirectory(prefix="soak-", dir="/tmp") as folder:
        work = _work(Path(folder), name, rows)
        running, suffering = kind(work), _Suffering(work.output)
        began = time.monotonic()
        running.start()
        telling = asyncio.create_task(suffering.tell(way, shards))
        killing = asyncio.create_task(suffering.suffer(running, plan(counts, shards, seed, latest_s=_LATEST_S)))
        try:
            wrong = await asyncio.wait_for(running.until_over(), _LONGEST_S)
        finally:
            telling.cancel()
            killing.cancel()
            await asyncio.wait((telling, killing))
            await running.close()
        seconds = time.monotonic() - began
        if killing.done() and not killing.cancelled():
            killing.result()
        suffering.look()
        found = look_at(work.output, rows)
        begun = executions(work.folder / "asked.log", rows, SHARD_ROWS, REQUEST_ROWS)
    faults = dict(found.faults) | ({wrong: 1} if wrong else {}) | ({"not begun": begun.count(0)} if 0 in begun else {})
    return {
        "rows": rows,
        "done": found.done,
        "failed": found.failed,
        "missing": found.missing,
        "doubled": found.doubled,
        "faults": faults,
        "parts_changed": len(suffering.changed),
        "kills": dict(suffering.kills),
        "shards": shards,
        "executions": {str(count): begun.count(count) for count in sorted(set(begun))},
        "done_again": sum(begun) - shards,
        "most_again": sum(suffering.could_lose[one] * count for one, count in suffering.kills.items()),
        "left": running.left,
        "survivors": suffering.survivors,
        "seconds": round(seconds, 1),
    }


def _work(folder: Path, name: str, rows: int) -> Work:
    topology = folder / "soak.yaml"
    topology.write_text(TOPOLOGY.read_text().replace("FOLDER", str(folder)))
    write_input(folder / name, rows)
    return Work(
        topology=topology,
        input=folder / name,
        output=folder / "out",
        folder=folder,
        shard_rows=SHARD_ROWS,
        request_rows=REQUEST_ROWS,
    )


class _Suffering:
    """Carries out a plan of kills, and watches the parts that become visible meanwhile.

    Args:
        output: Where they do.
    """

    could_lose: Mapping[str, int] = {
        "worker": 1,
        "coordinator": 1,
        "gateway": 0,
        "nats-server": 0,
        "everything": WORKERS,
    }
    """Shards that may be done again because of a kill: one for each worker that died."""

    def __init__(self, output: Path) -> None:
        self._parts = output / "parts"
        self._seen: dict[str, bytes] = {}
        self.kills: Counter[str] = Counter()
        self.changed: set[str] = set()
        """Parts that were visible, and are not what they were."""
        self.survivors = 0
        """Supervisors that were killed and one of whose processes was still there a minute later."""

    def look(self) -> int:
        """Look at every part that is visible; how many there are."""
        names = _names(self._parts)
        for name in names:
            told = blake3((self._parts / name).read_bytes()).digest(length=16)
            if self._seen.setdefault(name, told) != told:
                self.changed.add(name)
        self.changed |= self._seen.keys() - set(names)
        return len(names)

    async def suffer(self, running: Running, kills: Sequence[Kill]) -> None:
        """Carry it out, as far as the batch lasts."""
        for kill in kills:
            await _until(lambda kill=kill: len(_names(self._parts)) >= kill.after)
            await asyncio.sleep(kill.delay_s)
            while not await self._kill(running, kill):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_POLL_S)  # it is being started just now
            self.kills[kill.kind] += 1
            await asyncio.to_thread(self.look)

    async def _kill(self, running: Running, kill: Kill) -> bool:
        with Tree(running.supervisor) as tree:
            if kill.kind == "everything":
                # As soon as it has begun with anything: it may be killed while it starts, too.
                return bool(tree.children) and await self._kill_all(running, tree)
            if kill.kind == "coordinator":
                found = await tree.coordinator()
                return found is not None and found.kill()
            named = tree.workers if kill.kind == "worker" else [one for one in tree.children if one.name == kill.kind]
            return bool(named) and named[int(kill.chance * len(named))].kill()

    async def _kill_all(self, running: Running, tree: Tree) -> bool:
        os.kill(running.supervisor, signal.SIGKILL)
        running.start()  # at once: what the first one had may not be gone yet
        gone = await asyncio.to_thread(lambda: [child.ends() for child in tree.children])
        self.survivors += not all(gone)
        return True

    async def tell(self, way: str, shards: int) -> None:
        """Say how far it is, now and then."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(_TELL_S)
            kills = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
            done = len(_names(self._parts))
            print(f"{way}: {time.monotonic() - began:4.0f} s: {done} of {shards} shards; killed: {kills}", flush=True)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_POLL_S)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
