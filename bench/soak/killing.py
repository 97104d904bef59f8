"""Who is killed when, and the mesh that stands it."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.soak.ledger import Ledger
from tests.harness.processes import MeshUp

__all__ = ["KINDS", "Kill", "Victims", "plan", "shared_out"]

KINDS: Mapping[str, float] = {"worker": 0.4, "gateway": 0.2, "nats-server": 0.25, "supervisor": 0.15}
"""What is killed, and its share of all kills."""
TOPOLOGY = Path(__file__).parent / "soak.yaml"
_PORTS = range(10_000, 20_000)
"""Neither those that the store chooses from, nor those that systems give to connections."""
_POLL_S = 0.01
_WORKER = re.compile(r"jobs-\d+")


@dataclass(frozen=True, slots=True)
class Kill:
    """One of a plan."""

    after: int
    """When so many jobs were acknowledged."""
    kind: str
    delay_s: float
    """And so much later."""
    chance: float
    """Which of those of its kind, from 0 to 1."""


def plan(kills: Mapping[str, int], jobs: int, seed: int, *, latest_s: float = 1.5) -> list[Kill]:
    """Kills at random moments of a load, some of them close together, in their order.

    Args:
        kills: How many of each kind.
        jobs: Of the load.
        seed: The same gives the same plan.
        latest_s: How long after its moment a kill comes, at the most.
    """
    chance = random.Random(seed)
    kinds = [kind for kind, count in sorted(kills.items()) for _ in range(count)]
    chance.shuffle(kinds)
    moments = sorted(chance.uniform(0.01, 0.97) * jobs for _ in kinds)
    return [
        Kill(int(moment), kind, chance.uniform(0.0, latest_s), chance.random())
        for moment, kind in zip(moments, kinds, strict=True)
    ]


def shared_out(kills: int) -> dict[str, int]:
    """So many kills, by kind."""
    found = {kind: int(kills * share) for kind, share in KINDS.items()}
    found["worker"] += kills - sum(found.values())
    return found


class Victims:
    """A mesh on one data folder and at one address, which is started again whenever it is gone.

    Args:
        folder: For what it stores, and for its temporary files; of a short path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = _free_port()
        self._mesh: MeshUp | None = None
        self._starts = 0
        self.address = f"grpc://127.0.0.1:{self._port}"
        self.killed: list[tuple[str, float]] = []
        """Kind and monotonic time of each kill so far."""
        self.suffered = asyncio.Event()
        """Set once all was carried out."""
        self.left = 0
        """How often the mesh left by itself, and was started again."""
        self.survivors = 0
        """Supervisors that were killed and one of whose processes was still there a minute later."""

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        self._start()
        assert self._mesh is not None
        await asyncio.to_thread(self._mesh.ready)

    async def restart(self) -> None:
        """End it in its own way, and start it anew."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """End it in its own way."""
        if self._mesh is not None:
            self._mesh.signal(signal.SIGTERM)
            await asyncio.to_thread(self._mesh.wait)
            self.close()

    def close(self) -> None:
        """End it at once."""
        if self._mesh is not None:
            self._mesh.close()
            self._mesh = None

    def _start(self) -> None:
        self._starts += 1
        temporary = self._folder / str(self._starts)
        temporary.mkdir()
        arguments = (str(TOPOLOGY), "--data", str(self._folder / "data"), "--listen", self.address)
        self._mesh = MeshUp(*arguments, folder=temporary)

    async def suffer(self, kills: Sequence[Kill], ledger: Ledger) -> None:
        """Carry out a plan."""
        for kill in kills:
            while ledger.acknowledged < kill.after:
                self._look_after()
                await asyncio.sleep(_POLL_S)
            await asyncio.sleep(kill.delay_s)
            while not await self._kill(kill):
                # It is being started again just now.
                self._look_after()
                await asyncio.sleep(_POLL_S)
            self.killed.append((kill.kind, time.monotonic()))
        self.suffered.set()
        while True:
            self._look_after()
            await asyncio.sleep(_POLL_S)

    def _look_after(self) -> None:
        """Start it again where it left by itself."""
        if self._mesh is not None and self._mesh.process.poll() is not None:
            self.left += 1
            told = [line for line in self._mesh.lines if line.startswith("mesh: ")]
            print("\n".join(["the mesh left by itself:", *told[-30:]]), flush=True)
            self._mesh.close()
            self._start()

    async def _kill(self, kill: Kill) -> bool:
        mesh = self._mesh
        assert mesh is not None
        if kill.kind == "supervisor":
            mesh.signal(signal.SIGKILL)
            self._start()  # at once: what the first one had may not be gone yet
            if not await asyncio.to_thread(lambda: mesh.wait() and mesh.all_gone()):
                self.survivors += 1
            mesh.close()
            return True
        names = sorted(name for name in mesh.names if _WORKER.fullmatch(name)) if kill.kind == "worker" else [kill.kind]
        return bool(names) and mesh.kill(names[int(kill.chance * len(names))])

    @property
    def kills(self) -> Counter[str]:
        """So far, by kind."""
        return Counter(kind for kind, _ in self.killed)


def _free_port() -> int:
    for port in random.sample(_PORTS, 64):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
