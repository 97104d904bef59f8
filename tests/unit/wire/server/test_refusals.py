"""What is not supported is refused by name; what is no gRPC is answered as HTTP has it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from mesh.wire import frames
from mesh.wire.decoding import Decoder
from mesh.wire.limits import WireLimits
from mesh.wire.server import server
from tests.unit.wire.core.given import REQUEST, data, headers, ping
from tests.unit.wire.raw import raw_client, request
from tests.unit.wire.server.engines import up
from tests.unit.wire.serving import serving

HTTP = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x"), (b"user-agent", b"curl")]


def test_a_thread_pool_is_refused() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="migration_thread_pool"):
        server(pool)


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grpc\.something_else"):
        server(options=[("grpc.max_receive_message_length", 5), ("grpc.something_else", 1)])


def test_an_option_that_tunes_grpcio_alone_is_taken() -> None:
    server(options=[("grpc.http2.bdp_probe", 0), ("grpc.optimization_target", "throughput")])


@pytest.mark.parametrize(
    ("option", "value"),
    [("grpc.max_concurrent_streams", -1), ("grpc.max_metadata_size", 0), ("grpc.max_concurrent_streams", 1 << 31)],
)
def test_an_option_out_of_range_is_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=r"max_concurrent_streams|max_header_list_bytes"):
        server(options=[(option, value)])


def test_options_come_before_limits() -> None:
    made = server(
        options=[("grpc.max_concurrent_streams", 7)], limits=WireLimits(max_concurrent_streams=9, hello_s=3.0)
    )
    limits = made._shared.limits  # pyright: ignore[reportPrivateUsage]
    assert (limits.max_concurrent_streams, limits.hello_s) == (7, 3.0)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_handler_that_blocks_is_refused(kind: str) -> None:
    def blocking(request: Any, context: Any) -> Any:
        return b""

    async with up("wire", None, **{kind: blocking}) as channel:
        ask = getattr(channel, kind)(f"/test/{kind}")
        call = ask(b"") if kind.startswith("unary") else ask()
        assert await call.code() is grpc.StatusCode.UNKNOWN
        assert "async" in str(await call.details())


async def test_an_encoding_that_is_not_known_is_unimplemented() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, [*REQUEST, (b"grpc-encoding", b"snappy")]), data(1, b"\1\0\0\0\1x", end=True))
        (head,) = [one for one in await client.ended(1) if one.kind == frames.HEADERS]
        fields = dict(Decoder(10_000).decode(head.payload))
        assert fields[b"grpc-status"] == b"12"
        assert b"identity, gzip, deflate" in fields[b"grpc-message"]


@pytest.mark.parametrize("timeout", [b"", b"1", b"S", b"-1S", b"123456789S", b"1x", b"1.5S"])
async def test_a_timeout_that_is_none_is_refused(timeout: bytes) -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, [*REQUEST, (b"grpc-timeout", timeout)]), data(1, b"\0\0\0\0\1x", end=True))
        (head,) = [one for one in await client.ended(1) if one.kind == frames.HEADERS]
        assert dict(Decoder(10_000).decode(head.payload))[b"grpc-status"] == b"13"


async def answered(client: Any, stream_id: int) -> tuple[dict[bytes, bytes], bytes]:
    read = await client.ended(stream_id)
    blocks = [one.payload for one in read if one.kind == frames.HEADERS]
    assert len(blocks) == 1
    block = blocks[0].removeprefix(b"\x20")
    return dict(Decoder(10_000).decode(block)), b"".join(one.payload for one in read if one.kind == frames.DATA)


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"OPTIONS", b"HEAD"])
async def test_another_method_than_post_is_405(method: bytes) -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, [(b":method", method), *HTTP[1:]], end=True))
        fields, text = await answered(client, 1)
        assert (fields[b":status"], fields[b"allow"]) == (b"405", b"POST")
        assert (int(fields[b"content-length"]) == len(text)) == (method != b"HEAD")
        assert await client.ask() == b"hello"


@pytest.mark.parametrize(
    "content", [None, b"text/html", b"application/grpc-web", b"application/grpcish", b"application/json"]
)
async def test_content_that_is_no_grpc_is_415(content: bytes | None) -> None:
    fields = [(b":method", b"POST"), *HTTP[1:], *([(b"content-type", content)] if content else [])]
    async with serving() as server, raw_client(server.port) as client:
        for stream_id, end in ((1, True), (3, False)):
            await client.send(headers(stream_id, fields, end=end))
            answer, text = await answered(client, stream_id)
            assert answer[b":status"] == b"415"
            assert int(answer[b"content-length"]) == len(text) > 0
        # The rest of the request may still come, and is passed over.
        await client.send(data(3, bytes(16_000)), data(3, bytes(16_000), end=True))
        assert await client.ask() == b"hello"
        assert not [one for one in client.frames if one.kind == frames.RST_STREAM]
        assert not server.connections[0].connection.streams


@pytest.mark.parametrize(
    "content", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=x", b"application/grpc+json"]
)
async def test_content_that_is_grpc_is_taken(content: bytes) -> None:
    fields = [(n, content if n == b"content-type" else b"/test/echo" if n == b":path" else v) for n, v in REQUEST]
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, fields), data(1, b"\0\0\0\0\1x", end=True))
        assert b"\0\0\0\0\1x" in [one.payload for one in await client.ended(1)]


async def test_a_client_that_goes_on_and_on_after_415_is_told_to_stop() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(headers(1, [(b":method", b"POST"), *HTTP[1:]]))
        for _ in range(6):
            await client.send(data(1, bytes(16_000)))
        assert (await client.frame(frames.RST_STREAM, 1)).code == 0
        await client.send(ping())
        await client.frame(frames.PING)
        (connection,) = server.connections
        assert not connection.connection.streams
        assert connection.plain._discarded == {}  # pyright: ignore[reportPrivateUsage]


async def test_http1_is_hung_up_on() -> None:
    async with serving() as server, raw_client(server.port) as neighbour:
        async with raw_client(server.port, hello=False) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.gone()
        assert await neighbour.ask() == b"hello"


async def test_requests_and_connections_may_be_mixed_with_grpc() -> None:
    async with serving() as server, raw_client(server.port) as client:
        await client.send(*[headers(number, HTTP, end=True) + request(number + 2) for number in range(1, 81, 4)])
        await client.ended(79)
        statuses = [one for one in client.frames if one.kind == frames.HEADERS and one.flags & frames.END_STREAM]
        assert len(statuses) == 20
        assert server.handlers.started == 20
