"""`Fetch` on a server of S3 that nobody here wrote: signatures, keys of any kind, its own words for what is wrong."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from mesh import Context, InvalidInput
from mesh.partial import take_partial
from nodes.fetch import Bucket, Fetch
from tests.harness.s3 import BUCKET, OBJECTS, REGION, S3, s3
from tests.unit.nodes.fetch_origin import ask, fetch


@pytest.fixture(scope="module")
def server() -> Generator[S3]:
    with s3() as running:
        yield running


@pytest.fixture
def reading(server: S3, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a node needs that reads with the key."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    return {"buckets": {BUCKET: Bucket(endpoint=server.url, region=REGION)}, "timeout": 60.0}


async def test_objects_are_read_with_a_signature_whatever_their_keys(reading: dict[str, Any]) -> None:
    assert await fetch(*(f"s3://{BUCKET}/{name}" for name in OBJECTS), **reading) == list(OBJECTS.values())


async def test_an_object_or_a_bucket_that_is_not_there_is_refused(reading: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"row 1: .*: there is no such object"):
        await fetch(f"s3://{BUCKET}/a", f"s3://{BUCKET}/b", **reading)
    reading["buckets"]["nowhere"] = reading["buckets"][BUCKET]
    with pytest.raises(InvalidInput, match=r"row 0: .*s3://nowhere/a: there is no such object"):
        await fetch("s3://nowhere/a", **reading)


async def test_other_rows_are_read_beside_one_that_is_not_there(reading: dict[str, Any]) -> None:
    given = (f"s3://{BUCKET}/b", f"s3://{BUCKET}/a", f"s3://{BUCKET}/empty")
    async with Fetch(**reading) as node:
        with pytest.raises(InvalidInput) as caught:
            await ask(node, *given, context=Context(partial=True))
    partial = take_partial(caught.value)
    assert partial is not None
    assert partial.answer["data"].tolist() == [b"first", b""]


async def test_a_key_that_is_wrong_or_missing_opens_nothing(
    server: S3, reading: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret[::-1])
    with pytest.raises(InvalidInput, match="it may not be read"):
        await fetch(f"s3://{BUCKET}/a", **reading)
    reading["buckets"] = {BUCKET: Bucket(endpoint=server.url, region=REGION, unsigned=True)}
    with pytest.raises(InvalidInput, match="it may not be read"):
        await fetch(f"s3://{BUCKET}/a", **reading)


async def test_an_object_past_the_bound_is_refused(reading: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="more than the 1MiB"):
        await fetch(f"s3://{BUCKET}/large", max_bytes=1 << 20, **reading)
