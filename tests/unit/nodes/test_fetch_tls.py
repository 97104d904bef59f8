from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from mesh import InvalidInput, Unavailable
from nodes.fetch import Fetch
from tests.unit.nodes.fetch_origin import ask, origin
from tests.unit.wire.server.test_tls import Pair, signed


@pytest.fixture(scope="module")
def authority() -> Pair:
    return signed("authority")


@pytest.fixture
def trusting(authority: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is one that this machine trusts."""
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def secret(shown: Pair, folder: Path) -> ssl.SSLContext:
    (folder / "chain.pem").write_bytes(shown.pem)
    (folder / "key.pem").write_bytes(shown.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return context


def allowing(port: int, host: str = "localhost") -> Fetch:
    return Fetch(hosts=[f"{host}:{port}"], allow_private=True)


@pytest.mark.usefixtures("trusting")
async def test_over_tls_connections_are_used_again(authority: Pair, tmp_path: Path) -> None:
    async with origin(secret(signed("localhost", authority), tmp_path)) as server:
        server.body("/a", b"body")
        async with allowing(server.port) as node:
            for _ in range(4):
                assert await ask(node, f"https://localhost:{server.port}/a") == [b"body"]
        assert (len(server.asked), server.connections) == (4, 1)


async def test_a_certificate_that_nobody_trusts_is_refused(authority: Pair, tmp_path: Path) -> None:
    async with origin(secret(signed("localhost", authority), tmp_path)) as server:
        async with allowing(server.port) as node:
            with pytest.raises(InvalidInput, match=r"row 0: .*: the certificate of the server is not trusted"):
                await ask(node, f"https://localhost:{server.port}/a")
        assert server.asked == []


@pytest.mark.usefixtures("trusting")
async def test_a_certificate_of_another_host_is_refused(authority: Pair, tmp_path: Path) -> None:
    async with origin(secret(signed("elsewhere", authority), tmp_path)) as server:
        async with allowing(server.port) as node:
            with pytest.raises(InvalidInput, match="certificate"):
                await ask(node, f"https://localhost:{server.port}/a")
        assert server.asked == []


@pytest.mark.usefixtures("trusting")
async def test_a_redirect_out_of_tls_is_refused(authority: Pair, tmp_path: Path) -> None:
    async with origin() as plain, origin(secret(signed("localhost", authority), tmp_path)) as server:
        server.redirect("/a", plain.body("/b", b"body"))
        node = Fetch(hosts=[f"localhost:{server.port}", f"127.0.0.1:{plain.port}"], allow_private=True)
        async with node:
            with pytest.raises(InvalidInput, match="from https: to http:"):
                await ask(node, f"https://localhost:{server.port}/a")
        assert plain.connections == 0


async def test_a_server_that_speaks_no_tls_is_unavailable() -> None:
    def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        async with allowing(port) as node:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await ask(node, f"https://localhost:{port}/a")
