"""The soak, small: real processes are killed under load, at moments that a seed chooses, and nothing is lost."""

from __future__ import annotations

import sys

import pytest

from bench.soak.running import soak

pytestmark = [
    pytest.mark.processes,
    pytest.mark.one_engine,
    pytest.mark.timeout(300),  # twenty processes are started one after the other, on a machine that may be busy
    pytest.mark.skipif(sys.platform != "linux", reason="kills processes by pidfd"),
]

JOBS = 300
KILLS = {"worker": 8, "gateway": 2, "nats-server": 6, "supervisor": 2}


async def test_nothing_is_lost_whatever_is_killed() -> None:
    told = await soak(JOBS, KILLS, seed=6, in_flight=32, latest_s=0.3, restart=False)
    assert (told["told"], told["faults"]) == ([], {})
    assert (told["acknowledged"], told["lost"], told["ids_with_two_ends"]) == (JOBS, 0, 0)
    assert told["kills"] == KILLS
    assert sum(told["attempts"].values()) == JOBS
    assert told["looks"] >= 2 * JOBS
    assert told["survivors"] == 0, "what a supervisor started outlived it"
