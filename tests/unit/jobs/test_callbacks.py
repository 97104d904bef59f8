"""Callbacks, told over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import random

import grpc
import pytest

from mesh.errors import InvalidInput, RequestError, Unavailable
from mesh.jobs.callbacks.signing import verify
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.callbacks.teller import Teller
from mesh.jobs.records import Callback
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.counts import WorkCounter, WorkCounts
from mesh.testing import ManualClock
from tests.unit.jobs.hooks import KEY, Hook, ScriptedNotice, allowing, hook, job, listening

NOW = 1_700_000_002.7


async def told(notice: ScriptedNotice, settings: CallbackSettings) -> WorkCounts:
    """Make one attempt; what was counted."""
    counter = WorkCounter()
    await Teller(settings, counter, wall=lambda: NOW, chance=random.Random(1))(notice)
    return counter.counts


def here(made: Hook, **changes: object) -> CallbackSettings:
    return allowing(f"127.0.0.1:{made.port}", f"localhost:{made.port}", **changes)


async def test_a_post_that_is_heard_is_told() -> None:
    async with hook() as made:
        notice = ScriptedNotice(Callback(url=made.url(path="/hook?key=1")))
        assert await told(notice, here(made, keys=(KEY,))) == WorkCounts(callbacks_told=1)
    assert notice.end == ("told", None)
    (heard,) = made.heard
    assert heard.line == "POST /hook?key=1 HTTP/1.1"
    assert heard.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert heard.headers["user-agent"] == "inference-mesh"
    assert json.loads(heard.body)["id"] == job().id
    signature, at = heard.headers["webhook-signature"], int(heard.headers["webhook-timestamp"])
    assert verify([KEY], signature, heard.headers["webhook-id"], at, heard.body, now=NOW)


async def test_localhost_is_reached_where_the_list_says_so() -> None:
    async with hook() as made:
        notice = ScriptedNotice(Callback(url=made.url("localhost")))
        await told(notice, here(made))
    assert notice.end == ("told", None)


async def test_a_name_that_leads_to_loopback_is_not_followed() -> None:
    # The system's resolver takes every name below localhost for loopback, or does not know it: refused either way.
    async with hook() as made:
        notice = ScriptedNotice(Callback(url=made.url("inner.localhost")), number=1)
        await told(notice, allowing(f"*.localhost:{made.port}"))
    assert made.heard == []
    assert notice.end is not None
    assert notice.end[0] in ("given up", "again")


@pytest.mark.parametrize("status", ["500 No", "404 No", "429 Slow down", "301 Moved", "400 What", "200abc"])
async def test_what_is_not_heard_is_tried_again(status: str) -> None:
    async with hook() as made:
        made.will(status, "Location: http://127.0.0.1/elsewhere")
        notice = ScriptedNotice(Callback(url=made.url()))
        assert await told(notice, here(made)) == WorkCounts(callbacks_retried=1)
    assert notice.end is not None
    assert notice.end[0] == "again"
    assert len(made.heard) == 1, "nothing is redirected"


async def test_a_hint_is_kept_to() -> None:
    async with hook() as made:
        made.will("503 Later", "Retry-After: 120")
        notice = ScriptedNotice(Callback(url=made.url()))
        await told(notice, here(made, backoff=Backoff(first_s=0, most_s=0)))
    assert notice.end == ("again", 120)


async def test_who_is_gone_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    async with hook() as made:
        made.will("410 Gone")
        notice = ScriptedNotice(Callback(url=made.url(path="/hook?key=secret")))
        with caplog.at_level(logging.WARNING, "mesh.jobs"):
            assert await told(notice, here(made)) == WorkCounts(callbacks_failed=1)
    assert notice.end == ("given up", InvalidInput(f"http://127.0.0.1:{made.port} answered 410 Gone"))
    (line,) = caplog.messages
    assert job().id in line
    assert "secret" not in line


async def test_the_last_attempt_is_the_last(caplog: pytest.LogCaptureFixture) -> None:
    async with hook() as made:
        made.will("500 No")
        notice = ScriptedNotice(Callback(url=made.url()), number=3)
        with caplog.at_level(logging.WARNING, "mesh.jobs"):
            assert await told(notice, here(made, attempts=3)) == WorkCounts(callbacks_failed=1)
    assert notice.end == ("given up", Unavailable(f"http://127.0.0.1:{made.port} answered 500"))
    assert len(caplog.messages) == 1


async def test_a_target_that_is_not_allowed_any_more_is_given_up() -> None:
    notice = ScriptedNotice(Callback(url="http://127.0.0.1:9/"))
    assert await told(notice, allowing("example.com")) == WorkCounts(callbacks_failed=1)
    assert notice.end is not None
    assert isinstance(notice.end[1], InvalidInput)


async def test_nobody_there_is_tried_again() -> None:
    async with hook() as made:
        settings, url = here(made), made.url()
    notice = ScriptedNotice(Callback(url=url))
    assert await told(notice, settings) == WorkCounts(callbacks_retried=1)


@pytest.mark.parametrize("answer", [b"", b"no http at all\r\n\r\n", b"HTTP/1.1 20"], ids=["nothing", "other", "part"])
async def test_what_is_no_answer_is_tried_again(answer: bytes) -> None:
    async with hook() as made:
        made.answers.append(answer)
        notice = ScriptedNotice(Callback(url=made.url()))
        assert await told(notice, here(made)) == WorkCounts(callbacks_retried=1)


async def test_a_large_answer_is_not_read_to_its_end() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with hook() as made:
        made.answers.append(endless)
        notice = ScriptedNotice(Callback(url=made.url()))
        await told(notice, here(made))
    assert notice.end == ("told", None)


async def test_who_does_not_answer_in_time_is_told_again() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    clock, counter = ManualClock(), WorkCounter()
    async with hook() as made:
        made.answers.append(silent)
        notice = ScriptedNotice(Callback(url=made.url()))
        telling = asyncio.ensure_future(Teller(here(made, timeout_s=5), counter, clock=clock)(notice))
        await made.arrived.wait()
        await clock.advance(5)
        await telling
    assert notice.end is not None
    assert notice.end[0] == "again"
    assert clock.planned == 0


async def test_what_the_store_cannot_keep_at_once_is_kept_when_it_is_back() -> None:
    clock, counter = ManualClock(), WorkCounter()
    async with hook() as made:
        notice = ScriptedNotice(Callback(url=made.url()))
        notice.refusals = [Unavailable("gone"), Unavailable("gone")]
        telling = asyncio.ensure_future(Teller(here(made), counter, clock=clock)(notice))
        while not telling.done():
            await clock.advance(1)
            await asyncio.sleep(0)
    assert notice.end == ("told", None)
    assert len(made.heard) == 1


@pytest.mark.parametrize("refusal", [InvalidInput("never"), Unavailable("gone")])
async def test_a_store_that_keeps_nothing_breaks_nothing(refusal: RequestError) -> None:
    clock = ManualClock()
    async with hook() as made:
        notice = ScriptedNotice(Callback(url=made.url()))
        notice.refusals = [refusal] * 1000
        telling = asyncio.ensure_future(Teller(here(made), WorkCounter(), clock=clock)(notice))
        while not telling.done():
            await clock.advance(10)
            await asyncio.sleep(0)
        await telling
    assert notice.end is None, "so somebody is told again"


async def test_a_listener_is_called_and_its_signature_can_be_verified() -> None:
    async with listening() as made:
        notice = ScriptedNotice(Callback(listener=f"grpc://127.0.0.1:{made.port}"))
        settings = allowing(f"127.0.0.1:{made.port}", keys=(KEY,))
        assert await told(notice, settings) == WorkCounts(callbacks_told=1)
    assert notice.end == ("told", None)
    ((request, metadata),) = made.heard
    assert request.job.id == job().id
    assert not request.job.outputs
    at = int(metadata["webhook-timestamp"])
    assert verify([KEY], request.signature, metadata["webhook-id"], at, request.job.SerializeToString(), now=NOW)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_listener_that_fails_is_called_again(host: str) -> None:
    async with listening() as made:
        made.failures.append(grpc.StatusCode.UNAVAILABLE)
        callback = Callback(listener=f"grpc://{host}:{made.port}")
        settings = allowing(f"{host}:{made.port}")
        first = ScriptedNotice(callback)
        assert await told(first, settings) == WorkCounts(callbacks_retried=1)
        assert await told(ScriptedNotice(callback, 2), settings) == WorkCounts(callbacks_told=1)


async def test_a_listener_at_an_address_that_its_name_does_not_open_is_given_up() -> None:
    async with listening() as made:
        notice = ScriptedNotice(Callback(listener=f"grpc://inner.localhost:{made.port}"))
        await told(notice, allowing(f"inner.localhost:{made.port}"))
    assert made.heard == []
