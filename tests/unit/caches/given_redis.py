"""A Redis backend under test, and servers that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mesh.caches import CacheStats, Entry
from mesh.caches.addresses import parse_redis
from mesh.caches.redis import RedisBackend
from tests.harness.valkey import Valkey

__all__ = ["ENTRIES", "KEYS", "Rubbish", "connections", "counts", "listening", "opened"]

KEYS = [bytes([number]) * 16 for number in range(64)]
ENTRIES = [Entry(key, b"value of " + key, 1000.0) for key in KEYS]


@asynccontextmanager
async def opened(server: Valkey | str, **settings: object) -> AsyncGenerator[RedisBackend]:
    address = parse_redis(server if isinstance(server, str) else server.url)
    backend = RedisBackend(address, **{"timeout_s": 30.0, **settings})  # type: ignore[arg-type]
    try:
        yield backend
    finally:
        await backend.close()


def counts(stats: CacheStats) -> tuple[int, int, int, int]:
    return stats.hits, stats.misses, stats.failures, stats.skipped


def connections(server: Valkey) -> int:
    """Clients of the server, without the one that asks."""
    return server.ask(b"CLIENT LIST\r\n").count(b"id=") - 1


class Rubbish:
    """Something that listens and answers whatever it was told to; where that is nothing, it hangs up when asked."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.connections = 0
        self.asked = b""
        self.heard = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while asked := await reader.read(65536):
            self.asked += asked
            self.heard.set()
            if self.answer is None:
                break
            writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncGenerator[tuple[Rubbish, str]]:
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        rubbish = Rubbish(answer)
        server = await asyncio.start_unix_server(rubbish.serve, path)
        try:
            yield rubbish, f"redis+unix:{path}"
        finally:
            server.close()
            await server.wait_closed()
