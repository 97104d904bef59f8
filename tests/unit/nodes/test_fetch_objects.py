from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import TypeAdapter

from mesh import Context, InvalidInput, RequestError, SetupError, Unavailable
from mesh.testing import ManualClock
from nodes.fetch import Bucket, Fetch
from tests.unit.nodes.fetch_origin import Origin, answer, ask, fetch, origin

ERROR = b"<Error><Code>%s</Code><Message>no</Message></Error>"


@pytest.fixture
async def store() -> AsyncGenerator[Origin]:
    """What of S3 a GET needs, at a bucket called pages."""
    async with origin() as made:
        yield made


def put(store: Origin, key: str, data: bytes, status: str = "200 OK") -> str:
    date = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"
    store.body(f"/pages/{key}", data, date, 'ETag: "1"', status=status)
    return f"s3://pages/{key}"


def reading(store: Origin, **settings: Any) -> dict[str, Any]:
    return {"buckets": {"pages": Bucket(endpoint=store.url, region="eu-central-1", unsigned=True)}, **settings}


async def refusal(store: Origin, reference: str, **settings: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await fetch(reference, **reading(store, **settings))
    assert (caught.value.tensor, caught.value.row) == ("reference", 0)
    assert str(store.port) not in caught.value.text
    return caught.value


async def test_objects_are_read(store: Origin) -> None:
    large = b"x" * 3_000_000
    given = [put(store, "a", b"first"), put(store, "inner/b", large), put(store, "empty", b"")]
    assert await fetch(*given, given[0], **reading(store)) == [b"first", large, b"", b"first"]
    assert sorted(store.asked) == ["/pages/a", "/pages/empty", "/pages/inner/b"]


async def test_a_bucket_that_is_not_named_is_not_asked(store: Origin) -> None:
    error = await refusal(store, "s3://other/a")
    assert isinstance(error, InvalidInput)
    assert error.text == "tensor 'reference': s3://other/a: the bucket is not allowed"
    assert store.connections == 0


async def test_a_missing_object_is_refused(store: Origin) -> None:
    put(store, "a", ERROR % b"NoSuchKey", "404 Not Found")
    error = await refusal(store, "s3://pages/a")
    assert isinstance(error, InvalidInput)
    assert "no such object" in error.text


async def test_an_object_that_may_not_be_read_is_refused(store: Origin) -> None:
    for status in ("403 Forbidden", "401 Unauthorized"):
        put(store, "a", ERROR % b"AccessDenied", status)
        error = await refusal(store, "s3://pages/a")
        assert isinstance(error, InvalidInput)
        assert "may not be read" in error.text


async def test_a_store_that_fails_is_unavailable_and_asked_once(store: Origin) -> None:
    put(store, "a", ERROR % b"SlowDown", "503 Slow Down")
    assert isinstance(await refusal(store, "s3://pages/a"), Unavailable)
    assert store.asked == ["/pages/a"]


async def test_a_large_object_is_refused(store: Origin) -> None:
    put(store, "a", b"x" * 1000)
    assert await fetch("s3://pages/a", **reading(store, max_bytes=1000)) == [b"x" * 1000]
    assert "more than the 999B" in (await refusal(store, "s3://pages/a", max_bytes=999)).text


async def test_an_object_that_breaks_off_is_unavailable(store: Origin) -> None:
    head = ["Content-Length: 10", "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT", 'ETag: "1"', "Connection: close"]
    store.raw("/pages/a", answer(b"abc", *head))
    assert isinstance(await refusal(store, "s3://pages/a"), Unavailable)


async def test_a_slow_store_is_unavailable(store: Origin) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    store.raw("/pages/a", silent)
    clock = ManualClock()
    async with Fetch(**reading(store, timeout=60.0)) as node:
        task = asyncio.create_task(ask(node, "s3://pages/a", context=Context(clock=clock)))
        await store.begun.wait()
        await clock.advance(61)
        with pytest.raises(Unavailable, match="no answer within 60s"):
            await task


def test_a_bucket_in_a_topology_file() -> None:
    taken = TypeAdapter(dict[str, Bucket]).validate_json('{"pages": {"region": "eu-central-1"}}', strict=True)
    assert taken == {"pages": Bucket(region="eu-central-1")}


@pytest.mark.parametrize(
    ("package", "settings", "text"),
    [
        ("obstore", {"buckets": {"pages": Bucket()}}, r"buckets needs obstore: pip install 'inference-mesh\[s3\]'"),
        ("aiohttp", {"hosts": ["example.com"]}, r"hosts needs aiohttp: pip install 'inference-mesh\[fetch\]'"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, settings: dict[str, Any], text: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    Fetch(roots=["."])  # type: ignore[list-item]  # what is not asked for need not be there
    with pytest.raises(SetupError, match=text):
        Fetch(**settings)
