"""Where a server listens: ports, several of them, unix sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import grpc
import pytest

from mesh.wire.binding import bind_tcp
from mesh.wire.server import WireServer, server
from tests.unit.wire.serving import Handlers


async def asked(target: str) -> bytes:
    async with grpc.aio.insecure_channel(target) as channel:
        return await channel.unary_unary("/test/echo")(b"hello", timeout=5)


def made() -> tuple[WireServer, Handlers]:
    handlers = Handlers()
    return server(handlers=[handlers]), handlers


async def test_several_addresses_at_once(tmp_path: Path) -> None:
    serves, handlers = made()
    one, two = serves.add_insecure_port("127.0.0.1:0"), serves.add_insecure_port("localhost:0")
    assert serves.add_insecure_port(f"unix:{tmp_path}/socket") == 1
    await serves.start()
    assert one != two
    for target in (f"127.0.0.1:{one}", f"127.0.0.1:{two}", f"unix:{tmp_path}/socket", f"unix://{tmp_path}/socket"):
        assert await asked(target) == b"hello"
    assert handlers.context.peer().startswith("unix:")
    await serves.stop(None)
    assert not (tmp_path / "socket").exists()


async def test_small_answers_are_not_held_back_for_what_the_far_side_has_yet_to_acknowledge() -> None:
    accepted: asyncio.Future[asyncio.BaseTransport] = asyncio.get_running_loop().create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport)

    (bound,), port = bind_tcp("127.0.0.1:0", reuse_port=False)
    async with await asyncio.get_running_loop().create_server(Accepting, sock=bound):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        ours = (await accepted).get_extra_info("socket")
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        (await accepted).close()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("host", ["[::]", "0.0.0.0", "*", ""])
async def test_any_address_takes_ipv4(host: str) -> None:
    serves, handlers = made()
    port = serves.add_insecure_port(f"{host}:0")
    await serves.start()
    assert await asked(f"127.0.0.1:{port}") == b"hello"
    assert handlers.context.peer().startswith("ipv4:127.0.0.1:")
    await serves.stop(None)


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this system has no IPv6")
@pytest.mark.parametrize("host", ["[::]", "[::1]", "*"])
async def test_ipv6(host: str) -> None:
    serves, handlers = made()
    port = serves.add_insecure_port(f"{host}:0")
    await serves.start()
    assert await asked(f"[::1]:{port}") == b"hello"
    assert handlers.context.peer().startswith("ipv6:%5B::1%5D:")
    await serves.stop(None)


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:", "127.0.0.1:x", "unix-abstract:x", "127.0.0.1:99999", "nowhere.invalid:1"]
)
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    serves, _ = made()
    with pytest.raises(RuntimeError, match=address.replace(".", r"\.")):
        serves.add_insecure_port(address)


async def test_a_port_that_is_taken_is_refused() -> None:
    first, _ = made()
    second, _ = made()
    port = first.add_insecure_port("127.0.0.1:0")
    with pytest.raises(RuntimeError, match=f"127.0.0.1:{port} cannot be bound: Address already in use"):
        second.add_insecure_port(f"127.0.0.1:{port}")
    await first.stop(None)
    assert second.add_insecure_port(f"127.0.0.1:{port}") == port
    await second.stop(None)


async def test_a_port_may_be_shared_where_that_is_wanted() -> None:
    options = [("grpc.so_reuseport", 1)]
    first, second = server(options=options), server(options=options)
    port = first.add_insecure_port("127.0.0.1:0")
    assert second.add_insecure_port(f"127.0.0.1:{port}") == port
    await first.stop(None)
    await second.stop(None)


async def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    serves, _ = made()
    serves.add_insecure_port(f"unix:{path}")
    await serves.start()
    assert await asked(f"unix:{path}") == b"hello"
    await serves.stop(None)


async def test_a_socket_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    first, _ = made()
    first.add_insecure_port(f"unix:{tmp_path}/socket")
    await first.start()
    second, _ = made()
    with pytest.raises(RuntimeError, match="in use"):
        second.add_insecure_port(f"unix:{tmp_path}/socket")
    await second.stop(None)
    assert await asked(f"unix:{tmp_path}/socket") == b"hello"
    await first.stop(None)


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    serves, _ = made()
    with pytest.raises(RuntimeError, match="Address already in use"):
        serves.add_insecure_port(f"unix:{path}")
    assert path.read_text() == "precious"


async def test_connections_of_the_moment_between_binding_and_start_are_served() -> None:
    serves, _ = made()
    port = serves.add_insecure_port("127.0.0.1:0")
    asking = asyncio.ensure_future(asked(f"127.0.0.1:{port}"))
    await asyncio.sleep(0.01)
    await serves.start()
    assert await asking == b"hello"
    await serves.stop(None)
