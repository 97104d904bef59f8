"""A server that found its disk full is started again once there is room, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.jobs.server.room import ENOUGH_BYTES, StoreRoom

STARTS = "[7] [INF] Starting nats-server"
FULL = "[7] [ERR] Filestore [soak-work] Critical write error: write /data/msgs/1.blk: no space left on device"
FREE = {"much": ENOUGH_BYTES, "little": ENOUGH_BYTES - 1}


def room(free: str) -> StoreRoom:
    return StoreRoom(Path("/nowhere"), lambda: FREE[free])


@pytest.mark.parametrize(
    "line",
    [FULL, "[7] [ERR] JetStream failed to store a msg on stream '$G > soak-work': write 1.blk: disk quota exceeded"],
)
def test_a_server_that_found_no_room_is_restarted_once_there_is_some(line: str) -> None:
    free = FREE["little"]
    watched = StoreRoom(Path("/nowhere"), lambda: free)
    watched.heard(STARTS)
    watched.heard(line)
    assert not watched.to_be_restarted(), "it can be read still, and would find no room"
    free = FREE["much"]
    assert watched.to_be_restarted()
    watched.heard(STARTS)
    assert not watched.to_be_restarted(), "it was"


@pytest.mark.parametrize("line", [STARTS, "[7] [INF] Server is ready", "[7] [ERR] Filestore [soak-work] is slow", ""])
def test_a_server_that_never_found_its_disk_full_is_left_alone(line: str) -> None:
    watched = room("much")
    watched.heard(line)
    assert not watched.to_be_restarted()


def test_what_is_free_is_what_the_system_says(tmp_path: Path) -> None:
    watched = StoreRoom(tmp_path)
    watched.heard(FULL)
    assert watched.to_be_restarted(), "the tests' own disk has room"
    gone = StoreRoom(tmp_path / "gone")
    gone.heard(FULL)
    assert not gone.to_be_restarted()
