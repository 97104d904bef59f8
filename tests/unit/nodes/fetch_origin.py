"""An HTTP server that a test scripts byte by byte, and how `Fetch` is asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from mesh import Context, Tensors
from nodes.fetch import Fetch

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Origin:
    """Answers by path; counts connections and requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.connections = 0
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.begun = asyncio.Event()
        """Set when a request has come."""
        self.gone = asyncio.Event()
        """Set when a client has closed a connection that was being answered."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def body(self, path: str, data: bytes, *headers: str, status: str = "200 OK") -> str:
        """Have `path` answered properly; returns its URL."""
        self.answers[path] = answer(data, f"Content-Length: {len(data)}", *headers, status=status)
        return self.url + path

    def redirect(self, path: str, to: str, status: int = 302) -> str:
        """Have `path` answered with a redirect; returns its URL."""
        return self.body(path, b"", f"Location: {to}", status=f"{status} Found")

    def raw(self, path: str, given: Answer) -> str:
        """Have `path` answered with these very bytes; returns its URL."""
        self.answers[path] = given
        return self.url + path

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                self.asked.append(path)
                self.heads.append(head.decode())
                self.begun.set()
                given = self.answers.get(path.partition("?")[0], answer(b"", "Content-Length: 0", status="404 No"))
                if isinstance(given, bytes):
                    writer.write(given)
                    if b"Connection: close" in given:
                        break
                else:
                    await given(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()


def answer(data: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + data


@asynccontextmanager
async def origin(secret: ssl.SSLContext | None = None) -> AsyncGenerator[Origin]:
    """A server on 127.0.0.1, gone with the test."""
    made = Origin()
    serving: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=secret)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def references(*given: str | bytes) -> Tensors:
    rows = np.empty(len(given), object)
    for row, one in enumerate(given):
        rows[row] = one.encode() if isinstance(one, str) else one
    return Tensors({"reference": rows})


async def ask(node: Fetch, *given: str | bytes, context: Context | None = None) -> list[bytes]:
    """Of a node that is loaded."""
    return (await node.preprocess(references(*given), context or Context()))["data"].tolist()


async def fetch(*given: str | bytes, **settings: Any) -> list[bytes]:
    """By a node of its own."""
    async with Fetch(**settings) as node:
        return await ask(node, *given)
