"""A batch that has to stand what becomes of those who run it."""

from __future__ import annotations

import abc
import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.soak_batches.tree import Tree
from mesh.errors import Overloaded, Unavailable
from mesh.jobs.batches.client import BatchClient
from mesh.jobs.batches.messages import Batch
from mesh.jobs.records import JobState
from mesh.topology.graph_jobs import GraphBatch
from tests.harness.meshes import ROOT
from tests.harness.processes import MESH

__all__ = ["WORKERS", "ByCommand", "ByMesh", "Running", "Work"]

WORKERS = 2
_AGAIN_S = 0.2
_TOLD_BYTES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is run over what."""

    topology: Path
    input: Path
    output: Path
    folder: Path
    """For everything else; of a short path, since sockets are in it."""
    shard_rows: int
    request_rows: int


class Running(abc.ABC):
    """A batch, and the command that runs it, which is started again whenever it is gone."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._said = Path()
        self.starts = 0
        self.left = 0
        """How often it left by itself before the batch was over."""

    @property
    def supervisor(self) -> int:
        """The process id of what everything else dies with."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; again and at once, whatever is left of the one before."""
        arguments = self.arguments()
        self.starts += 1
        # What it has of its own, and what it says.
        folder = self._work.folder / str(self.starts)
        folder.mkdir()
        self._said = folder / "said.txt"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [MESH, *arguments],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def look_after(self) -> bool:
        """Whether it has ended well. Where it left otherwise, it is started again."""
        assert self._process is not None
        code = self._process.poll()
        if code not in (None, 0, -signal.SIGKILL):
            self.left += 1
            said = self._said.read_bytes()[-_TOLD_BYTES:].decode(errors="replace")
            print(f"it left by itself, with {code}:\n{said}", flush=True)
            self.start()
        return code == 0

    async def close(self) -> None:
        """End everything."""
        if self._process is not None and self._process.poll() is None:
            with Tree(self.supervisor) as tree:
                self._process.kill()
                await asyncio.to_thread(lambda: [child.ends() for child in tree.children])
                self._process.wait()

    @abc.abstractmethod
    def arguments(self) -> list[str]:
        """Of the command that is to be started."""

    @abc.abstractmethod
    async def until_over(self) -> str:
        """Wait for the end of the batch; what is wrong with it, empty where nothing is."""


class ByCommand(Running):
    """By `mesh batch run`, begun again with `--resume`."""

    def arguments(self) -> list[str]:
        """Of `mesh`."""
        work = self._work
        options = {
            "--input": work.input,
            "--output": work.output,
            "--keep": "id",
            "--shard-rows": work.shard_rows,
            "--request-rows": work.request_rows,
            "--workers": WORKERS,
        }
        asked = ["batch", "run", str(work.topology), *(str(one) for option in options.items() for one in option)]
        return [*asked, "--resume"] if self.starts else asked

    async def until_over(self) -> str:
        """Until the command says so."""
        while not self.look_after():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_AGAIN_S)
        return ""


class ByMesh(Running):
    """By `mesh up` on one data folder, whose `BatchService` is asked until it answers."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._address = f"unix:{work.folder}/gateway.sock"

    def arguments(self) -> list[str]:
        """Of `mesh`."""
        work = self._work
        return ["up", str(work.topology), "--data", str(work.folder / "data"), "--listen", self._address]

    async def until_over(self) -> str:
        """Until the service says so."""
        work = self._work
        batch = GraphBatch(
            input=str(work.input),
            output=str(work.output),
            keep=("id",),
            shard_rows=work.shard_rows,
            request_rows=work.request_rows,
        )
        told: Batch | None = None
        async with BatchClient(self._address, call_s=10.0) as client:
            while told is None or not told.over:
                with suppress(Unavailable, Overloaded):
                    # Under one key it is one batch, however often it is asked for.
                    told = await (client.start(batch, key="soak") if told is None else client.get(told.id))
                self.look_after()
                await asyncio.sleep(_AGAIN_S)
        return "" if told.state is JobState.DONE else f"the batch ended as {told.state.value}: {told.error}"
