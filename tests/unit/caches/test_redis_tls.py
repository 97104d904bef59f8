"""`rediss://`: a Valkey behind TLS, whose certificate has to be the host's."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mesh.caches import Entry
from mesh.caches.addresses import parse_redis
from mesh.caches.redis import RedisBackend
from tests.harness.valkey import Valkey, valkey
from tests.unit.wire.server.test_tls import Pair, signed

KEY = b"k" * 16


@pytest.fixture(scope="module")
def authority() -> Pair:
    return signed("authority")


@contextlib.asynccontextmanager
async def behind_tls(server: Valkey, shown: Pair, folder: Path) -> AsyncGenerator[int]:
    """The port of a relay that takes TLS off."""
    (folder / "chain.pem").write_bytes(shown.pem)
    (folder / "key.pem").write_bytes(shown.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(server.path)
        await asyncio.gather(pass_on(reader, ours), pass_on(theirs, writer))

    listener = await asyncio.start_server(relay, "localhost", 0, family=2, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def test_entries_travel_over_tls_in_any_size(authority: Pair, tmp_path: Path) -> None:
    with valkey() as server:
        async with behind_tls(server, signed("localhost", authority), tmp_path) as port:
            address = parse_redis(f"rediss://localhost:{port}")
            cache = RedisBackend(address, timeout_s=30.0, ca_pem=authority.pem.decode())
            large = bytes(range(256)) * 8192
            assert await cache.put_many("node", [Entry(KEY, large), Entry(KEY[1:] + b"s", b"small")]) == 2
            assert (await cache.get_many("node", [KEY, KEY[1:] + b"s"])).values == [large, b"small"]
            await cache.close()


@pytest.mark.parametrize("host", ["localhost", "elsewhere"])
async def test_a_certificate_that_is_not_trusted_or_anothers_is_a_miss_and_says_so(
    host: str, authority: Pair, tmp_path: Path
) -> None:
    with valkey() as server:
        async with behind_tls(server, signed(host, authority), tmp_path) as port:
            ca_pem = "" if host == "localhost" else authority.pem.decode()
            cache = RedisBackend(parse_redis(f"rediss://localhost:{port}"), timeout_s=30.0, ca_pem=ca_pem)
            assert "certificate" in await cache.probe()
            assert await cache.put_many("node", [Entry(KEY, b"value")]) == 0
            assert (await cache.read_stats()).failures > 0
            await cache.close()
        assert server.ask(b"DBSIZE\r\n") == b":0\r\n"
