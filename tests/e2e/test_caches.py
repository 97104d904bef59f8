"""A cache node shared by real processes: asked, watched, emptied and filled by the command, killed and paused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.context import Context
from mesh.tensors import Tensors
from tests.harness.asking import asking
from tests.harness.meshes import ROOT, TOPOLOGIES
from tests.harness.processes import MeshUp, StartMesh, run_mesh

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

FILE = str(TOPOLOGIES / "shared_cache.yaml")


def digits() -> Tensors:
    with np.load(ROOT / "models" / "digits_sample.npz") as sample:
        return Tensors({"image": sample["image"][:16]})


async def ask(address: str, times: int = 1) -> list[Tensors]:
    async with asking(address) as graph:
        return [await graph(digits(), Context().within(30.0)) for _ in range(times)]


def counted(address: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the cached node was spared, and what the cache node holds."""
    told = json.loads(run_mesh("cache", "stats", address, "--json").stdout)
    (cached,) = told["cached"]
    (store,) = [one for one in told["caches"] if one["cache"] == "store"]
    return cached, store


@pytest.fixture(params=["shared", "beside", "processes"])
def mesh(request: pytest.FixtureRequest, start_mesh: StartMesh) -> MeshUp:
    return start_mesh(FILE, "--placement", request.param)


def test_workers_share_what_they_compute_and_the_command_tells_forgets_and_fills(mesh: MeshUp, tmp_path: Path) -> None:
    address = mesh.ready()
    first, *others = asyncio.run(ask(address, 12))
    assert all(other == first for other in others)
    cached, store = counted(address)
    # An answer that is still on its way to the store is shared, where it is asked for again.
    assert (cached["misses"], cached["hits"] + cached["coalesced"]) == (16, 11 * 16)
    assert cached["hit_ratio"] == pytest.approx(11 / 12)
    assert (store["entries"], store["kept"], store["backend"]) == (16, 16, "memory://")

    told = run_mesh("cache", "stats", address)
    assert "cached node" in told.stdout
    assert "91.7%" in told.stdout
    drawn = run_mesh("graph", FILE, "--stats", address).stdout
    assert "92#37; cached" in drawn
    assert "16 entries" in drawn

    cleared = run_mesh("cache", "clear", address, "--node", "digit")
    assert cleared.returncode == 0, cleared.stderr
    assert cleared.stdout.endswith("entries forgotten\n")
    assert counted(address)[1]["entries"] == 0

    np.save(tmp_path / "scaled.npy", digits()["image"] / np.float32(16))
    warmed = run_mesh("cache", "warm", address, "--node", "digit", "-i", f"X=@{tmp_path}/scaled.npy")
    assert (warmed.returncode, warmed.stdout) == (0, "16 rows of digit there\n")
    before = counted(address)[0]["misses"]
    assert asyncio.run(ask(address)) == [first]
    assert counted(address)[0]["misses"] == before == 32
    mesh.signal(signal.SIGTERM)
    assert mesh.wait() == 0
    assert mesh.all_gone()


def test_no_request_fails_of_a_cache_that_is_killed_or_does_not_answer(start_mesh: StartMesh) -> None:
    mesh = start_mesh(FILE, "--placement", "shared")
    address = mesh.ready()
    (first,) = asyncio.run(ask(address))
    os.kill(mesh.pid("cache"), signal.SIGSTOP)
    refreshed = asyncio.run(refresh(address, 4))
    assert all(answer == first for answer in refreshed)
    os.kill(mesh.pid("cache"), signal.SIGCONT)
    os.kill(mesh.pid("cache"), signal.SIGKILL)
    refreshed = asyncio.run(refresh(address, 4))
    assert all(answer == first for answer in refreshed)
    mesh.until("cache: ready after", times=2)
    mesh.signal(signal.SIGTERM)
    assert mesh.wait() == 0


async def refresh(address: str, times: int) -> list[Tensors]:
    """Answers that are computed anew and put into the cache, if it takes them."""
    async with asking(address) as graph:
        context = Context(parameters={"cache": "refresh"})
        return [await graph(digits(), context.within(30.0)) for _ in range(times)]


def test_what_cannot_be_filled_or_forgotten_is_said(start_mesh: StartMesh) -> None:
    address = start_mesh(FILE, "--placement", "fused").ready()

    def said(*arguments: str) -> tuple[int, str]:
        done: subprocess.CompletedProcess[str] = run_mesh("cache", *arguments)
        return done.returncode, done.stderr.strip()

    assert said("clear", address, "--cache", "hot") == (1, "NOT_FOUND: no cache is called 'hot' here; there is: shared")
    assert said("clear", address, "--version", "1")[0] == 2
    assert said("warm", address, "--node", "scale", "-i", "x=[[1.0]]") == (
        1,
        "NOT_FOUND: no node with a cache is called 'scale' here; there is: digit",
    )
    code, text = said("warm", FILE, "--node", "digit", "-i", "X=[]")
    assert code == 2
    assert "would be gone with this command" in text
