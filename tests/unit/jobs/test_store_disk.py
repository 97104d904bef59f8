from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.errors import Overloaded
from mesh.jobs.store.disk import Disk

MIB = 1 << 20


def have(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    blocks = (4096, 4096, total // 4096, free // 4096, free // 4096, 0, 0, 0, 0, 255)

    def looked_at(_: object) -> os.statvfs_result:
        return os.statvfs_result(blocks)

    monkeypatch.setattr(os, "statvfs", looked_at)


async def test_there_is_room_until_there_is_none(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path / "not" / "there" / "yet"))
    disk.check(1)
    assert disk.may_begin()
    with pytest.raises(Overloaded) as caught:
        disk.check(1 << 60)
    assert caught.value.retry_after_s > 0


async def test_without_a_folder_there_is_always_room() -> None:
    disk = Disk("")
    disk.check(1 << 60)
    assert disk.may_begin()


@pytest.mark.parametrize(
    ("total", "free", "new", "begun"),
    [
        (10_000 * MIB, 65 * MIB, True, True),
        (10_000 * MIB, 63 * MIB, False, True),
        (10_000 * MIB, 31 * MIB, False, False),
        (100 * MIB, 6 * MIB, True, True),
        (100 * MIB, 4 * MIB, False, True),
        (100 * MIB, 2 * MIB, False, False),
        (100 * MIB, 0, False, False),
    ],
)
async def test_what_room_is_left_is_for_what_is_stored_already(
    monkeypatch: pytest.MonkeyPatch, total: int, free: int, new: bool, begun: bool
) -> None:
    have(monkeypatch, total, free)
    disk = Disk("/anywhere")
    if new:
        disk.check(1000)
    else:
        with pytest.raises(Overloaded):
            disk.check(1000)
    assert disk.may_begin() is begun


async def test_what_was_let_in_since_one_looked_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 100 * MIB, 8 * MIB)
    disk = Disk("/anywhere")
    disk.check(2 * MIB)
    with pytest.raises(Overloaded):
        disk.check(2 * MIB)
