from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from mesh.errors import NotFound, SetupError, Unavailable
from mesh.jobs.records import Lane
from mesh.jobs.store.blobs import BlobFolder, BlobStore, BucketBlobs, id_of, open_blobs
from mesh.jobs.store.ids import SECRET_BYTES, Ids

IDS = Ids(bytes(SECRET_BYTES))
KINDS: dict[str, Callable[[Path], BlobStore]] = {
    "folder": lambda folder: BlobFolder(folder / "payloads"),
    "bucket": lambda _: BucketBlobs(MemoryStore()),
}


def names(count: int) -> list[str]:
    ids = [IDS.make(Lane.NORMAL, 1000.0 + place) for place in range(count)]
    return [f"inputs/{id}" for id in ids] + [f"outputs/{id}.0a" for id in ids]  # noqa: A001


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return KINDS[request.param](tmp_path)


def leave_unfinished(folder: Path) -> Path:
    """The one payload, as if whoever wrote it had died before its end."""
    (file,) = folder.glob("payloads/inputs/*/*")
    return file.rename(file.with_name(f"{file.name}~12-34"))


async def scanned(blobs: BlobStore, most: int) -> list[str]:
    found: list[str] = []
    while page := await blobs.scan(found[-1] if found else "", most):
        assert len(page) <= most
        found += [name for name, _, _ in page]
    return found


async def test_a_payload_is_kept_until_it_is_removed(blobs: BlobStore) -> None:
    first, *_ = names(1)
    await blobs.put(first, b"one")
    await blobs.put(first, b"other")
    assert await blobs.get(first) == b"other"
    await blobs.remove(first)
    await blobs.remove(first)
    with pytest.raises(NotFound):
        await blobs.get(first)


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_every_payload_is_found_once_page_by_page(blobs: BlobStore, most: int) -> None:
    assert await scanned(blobs, most) == []
    given = names(7)
    for name in given:
        await blobs.put(name, b"12345")
    found = await scanned(blobs, most)
    assert sorted(found) == sorted(given)
    sizes = {(size, written > 0) for _, size, written in await blobs.scan("", 100)}
    assert sizes == {(5, True)}


async def test_the_bytes_of_inputs_are_told(blobs: BlobStore) -> None:
    assert await blobs.total() == 0
    for name in names(3):
        await blobs.put(name, b"12345")
    assert await blobs.total() == 15


async def test_a_scan_goes_on_where_a_payload_was_removed(blobs: BlobStore) -> None:
    given = names(4)
    for name in given:
        await blobs.put(name, b"")
    first, *rest = await scanned(blobs, 100)
    await blobs.remove(first)
    assert [name for name, _, _ in await blobs.scan(first, 100)] == rest


async def test_what_was_not_written_to_its_end_is_no_payload_and_is_found(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path / "payloads")
    name, _ = names(1)
    await blobs.put(name, b"whole")
    unfinished = leave_unfinished(tmp_path)
    with pytest.raises(NotFound):
        await blobs.get(name)
    ((found, _, _),) = await blobs.scan("", 10)
    assert id_of(found) == id_of(name)
    await blobs.remove(found)
    assert not unfinished.exists()


async def test_a_folder_that_cannot_be_written_to_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "payloads").write_text("a file")
    with pytest.raises(Unavailable) as caught:
        await BlobFolder(tmp_path / "payloads").put(names(1)[0], b"")
    assert str(tmp_path) not in caught.value.text


async def test_payloads_are_for_their_owner_only(tmp_path: Path) -> None:
    await BlobFolder(tmp_path / "payloads").put(names(1)[0], b"")
    assert os.stat(tmp_path / "payloads").st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "inputs/", "inputs/../../etc/passwd", "other/" + "0" * 32, "inputs/" + "0" * 33])
def test_a_name_that_is_none_has_no_id(name: str) -> None:
    assert id_of(name) is None


@pytest.mark.parametrize(("folder", "address"), [("", ""), ("", "nothing://known")])
def test_payloads_need_a_place(folder: str, address: str) -> None:
    with pytest.raises(SetupError):
        open_blobs("g", folder, address)


def test_a_bucket_is_not_asked_before_it_is_needed() -> None:
    assert isinstance(open_blobs("g", "", "s3://a-bucket/prefix"), BucketBlobs)
