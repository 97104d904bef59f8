"""TLS and mutual TLS of a channel, with ALPN; certificates are made here."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh.wire
from mesh.wire.credentials import ChannelCredentials, ServerCredentials
from tests.unit.wire.client.handlers import chat, echo
from tests.unit.wire.client.pairs import Code
from tests.unit.wire.server.engines import SERVERS, Methods
from tests.unit.wire.server.test_tls import Pair, signed

ENGINES = pytest.mark.parametrize("engine", list(SERVERS))


@pytest.fixture(scope="module")
def authority() -> Pair:
    return signed("authority")


@pytest.fixture(scope="module")
def localhost(authority: Pair) -> Pair:
    return signed("localhost", authority)


@pytest.fixture(scope="module")
def somebody(authority: Pair) -> Pair:
    return signed("somebody", authority)


@asynccontextmanager
async def secured(engine: str, shown: Pair, clients: Pair | None = None, **handlers: Any) -> AsyncGenerator[int]:
    """A server under TLS; its port."""
    server: Any = SERVERS[engine](handlers=[Methods(handlers)])
    roots = None if clients is None else clients.pem
    if engine == "wire":
        credentials: Any = ServerCredentials(
            private_key=shown.key_pem,
            certificate_chain=shown.pem,
            root_certificates=roots,
            require_client_certificate=clients is not None,
        )
    else:
        credentials = grpc.ssl_server_credentials([(shown.key_pem, shown.pem)], roots, clients is not None)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def refused(channel: grpc.aio.Channel) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary("/test/unary_unary")(b"x", timeout=20)
    assert raised.value.code() is Code.UNAVAILABLE
    return raised.value.details() or ""


@ENGINES
async def test_calls_over_tls(engine: str, authority: Pair, localhost: Pair) -> None:
    trust = ChannelCredentials(root_certificates=authority.pem)
    async with (
        secured(engine, localhost, unary_unary=echo, stream_stream=chat) as port,
        mesh.wire.secure_channel(f"localhost:{port}", trust) as channel,
    ):
        message = bytes(300_000)
        assert await channel.unary_unary("/test/unary_unary")(message) == message
        call = channel.stream_stream("/test/stream_stream")(iter([bytes(50_000)] * 20))
        assert [len(one) async for one in call] == [50_000] * 20


@ENGINES
async def test_both_sides_show_their_certificates(
    engine: str, authority: Pair, localhost: Pair, somebody: Pair
) -> None:
    async def who(request: bytes, context: Any) -> bytes:
        return bytes(context.auth_context()["x509_common_name"][0])

    shown = ChannelCredentials(
        root_certificates=authority.pem, private_key=somebody.key_pem, certificate_chain=somebody.pem
    )
    trust = ChannelCredentials(root_certificates=authority.pem)
    async with secured(engine, localhost, authority, unary_unary=who) as port:
        async with mesh.wire.secure_channel(f"localhost:{port}", shown) as channel:
            assert await channel.unary_unary("/test/unary_unary")(b"") == b"somebody"
        async with mesh.wire.secure_channel(f"localhost:{port}", trust) as channel:
            await refused(channel)


@ENGINES
async def test_a_server_that_is_not_trusted_is_not_talked_to(engine: str, localhost: Pair) -> None:
    trust = ChannelCredentials(root_certificates=signed("another authority").pem)
    async with (
        secured(engine, localhost, unary_unary=echo) as port,
        mesh.wire.secure_channel(f"localhost:{port}", trust) as channel,
    ):
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(channel)


@ENGINES
async def test_the_name_has_to_be_the_certificates(engine: str, authority: Pair, somebody: Pair) -> None:
    trust = ChannelCredentials(root_certificates=authority.pem)
    async with secured(engine, somebody, unary_unary=echo) as port:
        async with mesh.wire.secure_channel(f"localhost:{port}", trust) as channel:
            assert "CERTIFICATE_VERIFY_FAILED" in await refused(channel)
        override = [("grpc.ssl_target_name_override", "somebody")]
        async with mesh.wire.secure_channel(f"localhost:{port}", trust, override) as channel:
            assert await channel.unary_unary("/test/unary_unary")(b"x") == b"x"
        async with mesh.wire.secure_channel(f"ipv4:127.0.0.1:{port}", trust) as channel:
            assert await channel.unary_unary("/test/unary_unary")(b"x") == b"x"


@pytest.mark.parametrize("protocols", [None, ["http/1.1"]])
async def test_a_server_without_http2_is_not_talked_to(
    authority: Pair, localhost: Pair, protocols: list[str] | None
) -> None:
    context = ServerCredentials(private_key=localhost.key_pem, certificate_chain=localhost.pem).context()
    if protocols is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(context, localhost)
    else:
        context.set_alpn_protocols(protocols)
    over: list[asyncio.Task[None]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.current_task())  # pyright: ignore[reportArgumentType]
        try:
            await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trust = ChannelCredentials(root_certificates=authority.pem)
    async with mesh.wire.secure_channel(f"localhost:{port}", trust) as channel:
        assert "HTTP/2" in await refused(channel)
    server.close()
    await asyncio.gather(*over)


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pair.pem")
        path.write_bytes(pair.key_pem + pair.pem)
        context.load_cert_chain(path)


async def test_clear_text_where_tls_is_due(authority: Pair, localhost: Pair) -> None:
    async with (
        secured("wire", localhost, unary_unary=echo) as port,
        mesh.wire.insecure_channel(f"localhost:{port}") as channel,
    ):
        await refused(channel)
    server = mesh.wire.server(handlers=[Methods({"unary_unary": echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    trust = ChannelCredentials(root_certificates=authority.pem)
    async with mesh.wire.secure_channel(f"localhost:{port}", trust) as channel:
        await refused(channel)
    await server.stop(None)


async def test_credentials_of_grpcio_are_refused_by_name() -> None:
    theirs: Any = grpc.ssl_channel_credentials()
    with pytest.raises(TypeError, match=r"mesh\.wire\.ChannelCredentials"):
        mesh.wire.secure_channel("localhost:1", theirs)


async def test_a_key_that_is_none_is_found_at_once() -> None:
    wrong = ChannelCredentials(private_key=b"no key", certificate_chain=b"no certificate")
    with pytest.raises(ssl.SSLError):
        mesh.wire.secure_channel("localhost:1", wrong)
