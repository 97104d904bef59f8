"""Those who are told of jobs, and what is told to them, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from mesh import wire
from mesh.errors import RequestError, Unavailable
from mesh.hosts import AllowedHosts
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.records import Attempt, Callback, Job, JobState, Lane
from mesh.jobs.store.job_store import Notice
from mesh.tensors import Tensors
from mesh.v1 import job_listener_service_pb2, job_listener_service_pb2_grpc

__all__ = ["KEY", "Heard", "Hook", "Listening", "ScriptedNotice", "allowing", "hook", "job", "listening"]

KEY = bytes(range(32))


def job(**changes: Any) -> Job:
    """A job that is over."""
    given: dict[str, Any] = {
        "id": "a" * 32,
        "graph": "digits",
        "state": JobState.FAILED,
        "lane": Lane.NORMAL,
        "submit_time": 1_700_000_000.0,
        "end_time": 1_700_000_001.5,
        "expire_time": 1_700_086_401.5,
        "attempts": (
            Attempt(
                number=1,
                worker="jobs-0/1",
                start_time=1_700_000_001.0,
                end_time=1_700_000_001.5,
                error=Unavailable("gone"),
            ),
        ),
        "attempt_count": 1,
        "rows": 3,
        "outputs": Tensors({"x": np.zeros(3, np.float32)}),
        "error": Unavailable("gone", node="a"),
        "request_id": "r",
    }
    return Job(**{**given, **changes})


def allowing(*hosts: str, **changes: Any) -> CallbackSettings:
    return CallbackSettings(hosts=AllowedHosts(hosts), **changes)


class ScriptedNotice(Notice):
    """A notice that remembers what became of it."""

    def __init__(self, callback: Callback, number: int = 1, ended: Job | None = None) -> None:
        self.job = ended or job()
        self.callback = callback
        self.number = number
        self.first_time = 0.0
        self.end: tuple[str, object] | None = None
        self.refusals: list[RequestError] = []
        """What the store says before it takes the end."""

    def _ended(self, how: str, what: object = None) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        assert self.end is None, "a notice ends once"
        self.end = (how, what)

    async def told(self) -> None:
        self._ended("told")

    async def again(self, delay_s: float) -> None:
        self._ended("again", delay_s)

    async def give_up(self, error: RequestError) -> None:
        self._ended("given up", error)


@dataclass(frozen=True, slots=True)
class Heard:
    """One request."""

    line: str
    headers: dict[str, str]
    """Names in small letters."""
    body: bytes


Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Hook:
    """An HTTP server that answers as a test says: with 204 unless told otherwise."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.answers: list[Answer] = []
        self.port = 0
        self.arrived = asyncio.Event()

    def url(self, host: str = "127.0.0.1", path: str = "/hook") -> str:
        return f"http://{host}:{self.port}{path}"

    def will(self, status: str, *headers: str, body: bytes = b"") -> None:
        """Answer the next request so."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.answers.append("\r\n".join(lines).encode() + body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.heard.append(Heard(line, headers, body))
            self.arrived.set()
            given = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No Content\r\n\r\n"
            if isinstance(given, bytes):
                writer.write(given)
                await writer.drain()
            else:
                await given(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hook() -> AsyncGenerator[Hook]:
    """One on 127.0.0.1, gone with the test."""
    made = Hook()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        serving.add(task)
        await asyncio.wait((task,))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)


class Listening:
    """A `JobListenerService` that fails as a test says, and else hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[job_listener_service_pb2.JobEndedRequest, dict[str, str]]] = []
        self.failures: list[grpc.StatusCode] = []
        self.port = 0

    async def JobEnded(
        self, request: job_listener_service_pb2.JobEndedRequest, call: Any
    ) -> job_listener_service_pb2.JobEndedResponse:
        self.heard.append((request, dict(call.invocation_metadata())))
        if self.failures:
            await call.abort(self.failures.pop(0), "not now")
        return job_listener_service_pb2.JobEndedResponse()


@asynccontextmanager
async def listening() -> AsyncGenerator[Listening]:
    """One on 127.0.0.1, gone with the test."""
    made = Listening()
    server: Any = wire.server()
    job_listener_service_pb2_grpc.add_JobListenerServiceServicer_to_server(made, server)  # type: ignore[arg-type]
    made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)
