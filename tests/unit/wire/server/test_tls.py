"""TLS and mutual TLS, with ALPN; certificates are made here."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import dataclass

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mesh.wire.credentials import ServerCredentials
from mesh.wire.limits import WireLimits
from mesh.wire.server import WireServer, server
from tests.unit.wire.raw import raw_client
from tests.unit.wire.serving import Handlers, eventually

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A key and its certificate, PEM."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def signed(name: str, by: Pair | None = None) -> Pair:
    """A pair for a name, signed by another or, as an authority, by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .sign(by.key if by else key, hashes.SHA256())
    )
    return Pair(key, made)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return signed("authority")


@pytest.fixture(scope="module")
def localhost(authority: Pair) -> Pair:
    return signed("localhost", authority)


@pytest.fixture(scope="module")
def somebody(authority: Pair) -> Pair:
    return signed("somebody", authority)


async def started(credentials: ServerCredentials, limits: WireLimits | None = None) -> tuple[WireServer, Handlers, int]:
    handlers = Handlers()
    made = server(handlers=[handlers], limits=limits)
    port = made.add_secure_port("127.0.0.1:0", credentials)
    await made.start()
    return made, handlers, port


def only(localhost: Pair, **more: bytes | bool) -> ServerCredentials:
    return ServerCredentials(private_key=localhost.key_pem, certificate_chain=localhost.pem, **more)  # pyright: ignore[reportArgumentType]


async def test_grpcio_calls_over_tls(authority: Pair, localhost: Pair) -> None:
    made, handlers, port = await started(only(localhost))
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(authority.pem)) as channel:
        message = bytes(300_000)
        assert await channel.unary_unary("/test/echo")(message) == message
        call = channel.stream_stream("/test/chat")(iter([bytes(50_000)] * 20))
        assert len([one async for one in call]) == 20
    assert handlers.context.auth_context() == {"transport_security_type": [b"ssl"]}
    assert handlers.context.peer_identities() is None
    await made.stop(None)


async def test_grpcio_shows_its_certificate(authority: Pair, localhost: Pair, somebody: Pair) -> None:
    made, handlers, port = await started(
        only(localhost, root_certificates=authority.pem, require_client_certificate=True)
    )
    shown = grpc.ssl_channel_credentials(authority.pem, somebody.key_pem, somebody.pem)
    async with grpc.aio.secure_channel(f"localhost:{port}", shown) as channel:
        assert await channel.unary_unary("/test/echo")(b"x") == b"x"
    known = handlers.context.auth_context()
    assert known["x509_common_name"] == [b"somebody"]
    assert known["x509_subject_alternative_name"] == [b"somebody", b"127.0.0.1"]
    assert handlers.context.peer_identity_key() == "x509_subject_alternative_name"
    assert handlers.context.peer_identities() == [b"somebody", b"127.0.0.1"]
    await made.stop(None)


async def test_who_shows_no_certificate_or_a_strange_one_is_not_served(authority: Pair, localhost: Pair) -> None:
    made, handlers, port = await started(
        only(localhost, root_certificates=authority.pem, require_client_certificate=True)
    )
    stranger = signed("stranger", signed("another authority"))
    for shown in (
        grpc.ssl_channel_credentials(authority.pem),
        grpc.ssl_channel_credentials(authority.pem, stranger.key_pem, stranger.pem),
    ):
        async with grpc.aio.secure_channel(f"localhost:{port}", shown) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/test/echo")(b"x", timeout=5)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert handlers.started == 0
    await made.stop(None)


async def test_a_certificate_may_be_optional(authority: Pair, localhost: Pair) -> None:
    made, handlers, port = await started(only(localhost, root_certificates=authority.pem))
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(authority.pem)) as channel:
        assert await channel.unary_unary("/test/echo")(b"x") == b"x"
    assert handlers.context.peer_identities() is None
    await made.stop(None)


def client_context(authority: Pair, protocols: list[str] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    return context


@pytest.mark.parametrize("protocols", [None, ["http/1.1"]])
async def test_who_does_not_agree_on_http2_is_turned_away(
    authority: Pair, localhost: Pair, protocols: list[str] | None
) -> None:
    made, handlers, port = await started(only(localhost))
    async with raw_client(port, hello=False, tls=client_context(authority, protocols)) as client:
        await client.gone()
        assert client.frames == []
    async with raw_client(port, tls=client_context(authority, ["http/1.1", "h2"])) as client:
        assert await client.ask() == b"hello"
    assert handlers.started == 1
    await made.stop(None)


async def test_old_tls_is_refused(authority: Pair, localhost: Pair) -> None:
    made, _, port = await started(only(localhost))
    context = client_context(authority, ["h2"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with raw_client(port, tls=context) as client:
        assert await client.ask() == b"hello"
    context = client_context(authority, ["h2"])
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with raw_client(port, tls=context):
            pass
    await made.stop(None)


async def test_a_handshake_that_does_not_end_is_given_up(authority: Pair, localhost: Pair) -> None:
    made, _, port = await started(only(localhost), WireLimits(hello_s=0.05))
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
    async with raw_client(port, tls=client_context(authority, ["h2"])) as client:
        assert await client.ask() == b"hello"
        async with asyncio.timeout(10):
            for reader, writer in silent:
                assert await reader.read() == b""
                writer.close()
        assert await client.ask() == b"hello"
    await made.stop(None)


async def test_clear_text_to_a_port_of_tls_is_hung_up_on(authority: Pair, localhost: Pair) -> None:
    made, _, port = await started(only(localhost))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100))
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()
    await made.stop(None)


async def test_stop_says_goodbye_over_tls(authority: Pair, localhost: Pair) -> None:
    made, handlers, port = await started(only(localhost))
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(authority.pem)) as channel:
        call = asyncio.ensure_future(channel.unary_unary("/test/wait")(b"x"))
        await eventually(lambda: handlers.running == 1)
        stopping = asyncio.ensure_future(made.stop(20))
        await asyncio.sleep(0.01)
        handlers.let_go.set()
        assert await call == b"x"
        async with asyncio.timeout(10):
            await stopping


def test_credentials_of_grpcio_are_refused_by_name(localhost: Pair) -> None:
    made = server()
    with pytest.raises(TypeError, match=r"mesh\.wire\.ServerCredentials"):
        made.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(localhost.key_pem, localhost.pem)]))


def test_a_key_that_does_not_fit_is_refused(localhost: Pair, somebody: Pair) -> None:
    made = server()
    with pytest.raises(ssl.SSLError):
        made.add_secure_port(
            "127.0.0.1:0", ServerCredentials(private_key=somebody.key_pem, certificate_chain=localhost.pem)
        )
