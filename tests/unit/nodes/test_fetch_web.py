from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from mesh import Context, DeadlineExceeded, InvalidInput, RequestError, Unavailable
from mesh.testing import ManualClock
from nodes.fetch import Fetch, web
from tests.unit.nodes.fetch_origin import Origin, answer, ask, fetch, origin


@pytest.fixture
async def server() -> AsyncGenerator[Origin]:
    async with origin() as made:
        yield made


def allowing(server: Origin, **settings: Any) -> Fetch:
    """A node that may ask this server."""
    allowed: dict[str, Any] = {"hosts": [f"127.0.0.1:{server.port}"], "allow_private": True}
    return Fetch(**(allowed | settings))


async def get(server: Origin, *references: str, context: Context | None = None, **settings: Any) -> list[bytes]:
    async with allowing(server, **settings) as node:
        return await ask(node, *references, context=context)


async def refusal(server: Origin, reference: str, **settings: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await get(server, reference, **settings)
    error = caught.value
    assert (error.tensor, error.row) == ("reference", 0)
    assert error.text.startswith("tensor 'reference': ")
    return error


async def bad(server: Origin, reference: str, **settings: Any) -> str:
    error = await refusal(server, reference, **settings)
    assert isinstance(error, InvalidInput), error
    return error.text


async def passing(server: Origin, reference: str, **settings: Any) -> Unavailable:
    error = await refusal(server, reference, **settings)
    assert isinstance(error, Unavailable), error
    return error


async def test_bodies_come_in_the_order_of_the_rows(server: Origin) -> None:
    given = [server.body(f"/{index}", b"%d" % index) for index in range(40)]
    assert await get(server, *given) == [b"%d" % index for index in range(40)]


async def test_a_chunked_body_and_one_that_ends_with_the_connection_are_read(server: Origin) -> None:
    chunked = server.raw("/chunked", answer(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
    closed = server.raw("/closed", answer(b"abc", "Connection: close"))
    assert await get(server, chunked, closed, server.body("/empty", b"")) == [b"abcde", b"abc", b""]


async def test_a_reference_in_several_rows_is_fetched_once(server: Origin) -> None:
    url = server.body("/a", b"body")
    given = [url, server.body("/b", b"other"), url, url + "#part", url.replace("http", "HTTP")]
    assert await get(server, *given) == [b"body", b"other", b"body", b"body", b"body"]
    assert sorted(server.asked) == ["/a", "/b"]


async def test_connections_are_used_again(server: Origin) -> None:
    async with allowing(server, concurrency=2) as node:
        for _ in range(3):
            await ask(node, *(server.body(f"/{index}", b"body") for index in range(10)))
    assert len(server.asked) == 30
    assert server.connections <= 2


async def test_a_connection_that_the_server_dropped_meanwhile_is_not_noticed(server: Origin) -> None:
    server.answers["/a"] = answer(b"body", "Content-Length: 4", "X: Connection: close")  # closes without saying so
    async with allowing(server) as node:
        for _ in range(3):
            assert await ask(node, server.url + "/a") == [b"body"]
    assert server.connections == 3


async def test_what_is_sent_holds_no_cookie_no_credentials_and_asks_for_no_encoding(server: Origin) -> None:
    given = server.body("/a?key=value%2F", b"body", "Set-Cookie: a=b; Path=/")
    server.answers["/a"] = server.answers["/a?key=value%2F"]
    async with allowing(server) as node:
        await ask(node, given)
        await ask(node, server.body("/b", b""))
    assert server.heads[0] == server.heads[1].replace("/b", "/a?key=value%2F")
    assert server.heads[0].splitlines()[:-1] == [
        "GET /a?key=value%2F HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "User-Agent: inference-mesh",
    ]


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    server: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await get(server, server.body("/a", b"body")) == [b"body"]
    assert "authorization" not in server.heads[0].lower()


# Who may be asked.


async def test_a_host_that_is_not_allowed_is_not_asked(server: Origin) -> None:
    assert "the host is not allowed" in await bad(server, server.body("/a", b""), hosts=["127.0.0.1", "example.com"])
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[64:ff9b::7f00:1]",
     "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "10.0.0.1", "224.0.0.1", "100.100.100.200", "[::127.0.0.1]"],
)  # fmt: skip
async def test_an_allowed_host_at_an_address_that_is_not_public_is_not_asked(server: Origin, host: str) -> None:
    named = f"{host}:{server.port}"
    text = await bad(server, f"http://{named}/a", hosts=[named], allow_private=False)
    assert text.endswith("/a: the host is at an address that is not public")
    assert server.connections == 0


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have names resolved to each of these addresses in turn; returns the names asked for."""
    asked: list[str] = []
    resolve, left = socket.getaddrinfo, list(answers)

    def resolved(host: str, *args: Any, **how: Any) -> Any:
        asked.append(host)
        return resolve(left.pop(0), *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return asked


async def test_a_name_that_resolves_to_loopback_is_refused(server: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, "127.0.0.1")
    named = f"pages.example.com:{server.port}"
    assert "not public" in await bad(
        server, f"http://{named}/a", hosts=["*.example.com:" + str(server.port)], allow_private=False
    )
    assert asked == ["pages.example.com"]
    assert server.connections == 0


async def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rebinding: a name that is harmless when checked and something else when connected to.
    checked: list[str] = []

    def is_public(address: str) -> bool:
        checked.append(address)
        return address == "127.0.0.1"

    monkeypatch.setattr(web, "is_public", is_public)
    asked = resolving(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.2")
    server.body("/a", b"body")
    named = f"pages.example.com:{server.port}"
    assert await get(server, f"http://{named}/a", hosts=[named], allow_private=False) == [b"body"]
    assert (asked, checked) == (["pages.example.com"], ["127.0.0.1"])
    assert "not public" in await bad(server, f"http://{named}/a", hosts=[named], allow_private=False)
    assert checked == ["127.0.0.1", "127.0.0.2"]
    assert server.connections == 1


async def test_a_name_that_does_not_exist_is_refused(server: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(code: int) -> None:
        def resolve(*args: Any, **how: Any) -> Any:
            raise socket.gaierror(code, "no")

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    failing(socket.EAI_NONAME)
    assert "no host of that name" in await bad(server, "http://pages.example.com/", hosts=["*.example.com"])
    failing(socket.EAI_AGAIN)
    assert (
        "cannot be resolved now" in (await passing(server, "http://pages.example.com/", hosts=["*.example.com"])).text
    )


async def test_a_server_that_is_not_there_is_unavailable(server: Origin) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        named = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "cannot be reached" in (await passing(server, f"http://{named}/", hosts=[named])).text


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_an_allowed_host_is_followed(server: Origin, status: int) -> None:
    server.body("/b", b"body")
    assert await get(server, server.redirect("/a", "/b?c", status)) == [b"body"]
    assert server.asked == ["/a", "/b?c"]


@pytest.mark.parametrize(
    "host", ["localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "example.com", "u@127.0.0.1"]
)
async def test_a_redirect_to_another_host_is_refused_and_not_named(server: Origin, host: str) -> None:
    server.body("/internal", b"secret")
    text = await bad(server, server.redirect("/a", f"http://{host}:{server.port}/internal"))
    assert "it redirects to" in text
    assert "internal" not in text
    assert host not in text
    assert server.asked == ["/a"]


async def test_a_redirect_to_another_port_is_refused(server: Origin) -> None:
    async with origin() as other:
        text = await bad(server, server.redirect("/a", other.body("/b", b"secret")))
        assert "a host that is not allowed" in text
        assert other.connections == 0


async def test_a_redirect_to_loopback_is_refused_where_the_name_is_allowed(
    server: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "is_public", "127.0.0.1".__eq__)
    resolving(monkeypatch, "127.0.0.1", "127.0.0.2")
    first, second = f"a.example.com:{server.port}", f"b.example.com:{server.port}"
    server.redirect("/a", f"http://{second}/b")
    text = await bad(server, f"http://{first}/a", hosts=[first, second], allow_private=False)
    assert "not public" in text
    assert server.asked == ["/a"]


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "s3://pages/a", "ftp://127.0.0.1/", "data:,x", "", "http://["]
)
async def test_a_redirect_to_another_scheme_is_refused(server: Origin, location: str) -> None:
    text = await bad(server, server.redirect("/a", location), roots=["/etc"])
    assert "redirects to what is no http: or https: URL" in text


async def test_redirects_are_bounded(server: Origin) -> None:
    for index in range(5):
        server.redirect(f"/{index}", f"/{index + 1}")
    server.body("/5", b"body")
    assert await get(server, server.url + "/0", max_redirects=5) == [b"body"]
    assert "more than the 4 redirects" in await bad(server, server.url + "/0", max_redirects=4)
    assert "more than the 0 redirects" in await bad(server, server.url + "/4", max_redirects=0)


async def test_a_redirect_in_a_circle_ends(server: Origin) -> None:
    assert "more than the 5 redirects" in await bad(server, server.redirect("/a", "/a"))
    assert len(server.asked) == 6


# Bodies.


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", "Transfer-Encoding: chunked"))
    while True:
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await writer.drain()


async def endless_without_end(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", "Connection: close"))
    while True:
        writer.write(b"x" * 4096)
        await writer.drain()


@pytest.mark.parametrize("body", [endless, endless_without_end])
async def test_an_endless_body_is_cut_off(server: Origin, body: Callable[..., Any]) -> None:
    assert "more than the 100KiB" in await bad(server, server.raw("/a", body), max_bytes=100 << 10)
    await server.gone.wait()


async def test_endless_headers_are_cut_off(server: Origin) -> None:
    async def headers(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: " + b"x" * 1000 + b"\r\n")
            await writer.drain()

    assert "proper HTTP" in await bad(server, server.raw("/a", headers))
    await server.gone.wait()


async def test_a_body_of_just_the_bound_is_taken(server: Origin) -> None:
    url = server.body("/a", b"x" * 1000)
    assert await get(server, url, max_bytes=1000) == [b"x" * 1000]
    assert "more than the 999B" in await bad(server, url, max_bytes=999)


async def test_a_body_that_is_announced_too_large_is_not_read(server: Origin) -> None:
    async def announced(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", f"Content-Length: {10**15}"))
        await writer.drain()

    assert "more than the 16MiB" in await bad(server, server.raw("/a", announced))


async def test_all_bodies_together_are_bounded(server: Origin) -> None:
    first, second = server.body("/a", b"x" * 1000), server.raw("/b", endless)
    assert len(await get(server, first, first, max_total=2000)) == 2
    for given in ((first, first), (first, second)):
        with pytest.raises(InvalidInput, match="rows together are more than") as caught:
            await get(server, *given, max_total=1999)
        assert (caught.value.tensor, caught.value.row) == ("reference", None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
async def test_an_encoded_body_is_refused_unread(server: Origin, encoding: str) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert "encoded body" in await bad(server, server.body("/a", bomb, f"Content-Encoding: {encoding}"))
    assert await get(server, server.body("/b", bomb, "Content-Encoding: identity")) == [bomb]


async def test_a_body_that_is_shorter_than_stated_is_refused(server: Origin) -> None:
    url = server.raw("/a", answer(b"abc", "Content-Length: 10", "Connection: close"))
    assert "breaks off" in (await passing(server, url)).text


async def test_a_chunked_body_that_breaks_off_is_refused(server: Origin) -> None:
    url = server.raw("/a", answer(b"a\r\nabc", "Transfer-Encoding: chunked", "Connection: close"))
    assert "breaks off" in (await passing(server, url)).text


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 3", "Content-Length: 4"],
        ["Content-Length: 3", "Content-Length: 3"],
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Content-Length: 3, 3"],
        ["Content-Length: -3"],
        ["Content-Length: +3"],
        ["Content-Length: 0x3"],
        ["Content-Length: 3 3"],
        ["Content-Length: x"],
        ["Content-Length: " + "9" * 40],
    ],
)
async def test_a_wrong_content_length_is_refused(server: Origin, headers: list[str]) -> None:
    await bad(server, server.raw("/a", answer(b"abc", *headers)))


async def test_what_follows_a_body_never_answers_another_reference(server: Origin) -> None:
    # The excess looks like the answer to the next request of the connection.
    excess = answer(b"evil", "Content-Length: 4")
    at_once = server.raw("/a", answer(b"abc" + excess, "Content-Length: 3"))
    good = server.body("/good", b"good")

    async def later(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"abc", "Content-Length: 3"))
        await writer.drain()
        await sent.wait()
        writer.write(excess)
        await writer.drain()
        written.set()

    sent, written = asyncio.Event(), asyncio.Event()
    async with allowing(server, concurrency=1) as node:
        for _ in range(3):
            with contextlib.suppress(RequestError):  # that the body is too long may be told as well
                assert await ask(node, at_once) == [b"abc"]
            assert await ask(node, good) == [b"good"]
        assert await ask(node, server.raw("/b", later)) == [b"abc"]
        sent.set()
        await written.wait()
        assert await ask(node, good) == [b"good"]


@pytest.mark.parametrize(
    "given", [b"rubbish\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad\r\n\r\n"]
)
async def test_what_is_no_http_is_refused(server: Origin, given: bytes) -> None:
    assert "proper HTTP" in await bad(server, server.raw("/a", given))


async def test_a_server_that_closes_without_an_answer_is_unavailable(server: Origin) -> None:
    async def nothing(writer: asyncio.StreamWriter) -> None:
        writer.close()

    assert "closed the connection" in (await passing(server, server.raw("/a", nothing))).text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451, 204, 206, 300, 304])
async def test_an_answer_that_will_not_change_is_the_callers_fault(server: Origin, status: int) -> None:
    url = server.body("/a", b"", status=f"{status} No") + "?signature=secret"
    text = await bad(server, url)
    assert text.endswith(f"/a: the server answered {status}")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_answer_that_may_change_is_unavailable(server: Origin, status: int) -> None:
    assert (await passing(server, server.body("/a", b"", status=f"{status} No"))).retry_after_s == 0
    hinted = server.body("/b", b"", "Retry-After: 7", status=f"{status} No")
    assert (await passing(server, hinted)).retry_after_s == 7
    dated = server.body("/c", b"", "Retry-After: Wed, 21 Oct 2035 07:28:00 GMT", status=f"{status} No")
    assert (await passing(server, dated)).retry_after_s == 0


async def test_the_first_bad_row_is_named(server: Origin) -> None:
    good = server.body("/a", b"good")
    with pytest.raises(
        InvalidInput, match=re.escape(f"row 1: tensor 'reference': {server.url}/x: the server answered 404")
    ) as caught:
        await get(server, good, server.url + "/x", server.url + "/y", server.body("/z", b"", status="503 No"))
    assert caught.value.row == 1


# Time.


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def dribbling(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"x", "Content-Length: 10"))
    await asyncio.Event().wait()


@pytest.mark.parametrize("body", [silent, dribbling])
async def test_a_slow_server_is_unavailable(server: Origin, body: Callable[..., Any]) -> None:
    clock = ManualClock()
    async with allowing(server, timeout=2.0) as node:
        task = asyncio.create_task(ask(node, server.raw("/a", body), context=Context(clock=clock)))
        await server.begun.wait()
        await clock.advance(1.9)
        assert not task.done()
        await clock.advance(0.2)
        with pytest.raises(Unavailable, match=r"row 0: .*/a: no answer within 2s"):
            await task
    assert clock.planned == 0


async def test_waiting_for_a_turn_does_not_count_as_a_slow_server(server: Origin) -> None:
    clock = ManualClock()
    go_on = {"/a": asyncio.Event(), "/b": asyncio.Event()}

    def waiting(path: str) -> Callable[..., Any]:
        async def wait(writer: asyncio.StreamWriter) -> None:
            await go_on[path].wait()
            writer.write(answer(b"body", "Content-Length: 4"))

        return wait

    async with allowing(server, timeout=2.0, concurrency=1) as node:
        context = Context(clock=clock)
        tasks = [asyncio.create_task(ask(node, server.raw(path, waiting(path)), context=context)) for path in go_on]
        for path, task in zip(go_on, tasks, strict=True):
            await server.begun.wait()
            server.begun.clear()
            await clock.advance(1.9)
            go_on[path].set()
            assert await task == [b"body"]
    assert clock.planned == 0


async def test_the_deadline_of_the_request_bounds_every_fetch(server: Origin) -> None:
    clock = ManualClock()
    context = Context(clock=clock, deadline=clock.now() + 1)
    async with allowing(server, timeout=2.0) as node:
        task = asyncio.create_task(ask(node, server.raw("/a", silent), context=context))
        await server.begun.wait()
        await clock.advance(1)
        with pytest.raises(DeadlineExceeded):
            await task
        with pytest.raises(DeadlineExceeded):
            await ask(node, server.body("/b", b""), context=context)
    assert server.asked == ["/a"]


async def test_cancelled_it_lets_go_of_its_connections(server: Origin) -> None:
    async with allowing(server, concurrency=1) as node:
        task = asyncio.create_task(ask(node, server.raw("/a", silent)))
        await server.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ask(node, server.body("/b", b"body")) == [b"body"]


async def test_no_more_are_fetched_at_once_than_stated(server: Origin) -> None:
    running, most = 0, 0
    full, go_on = asyncio.Event(), asyncio.Event()

    async def counted(writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await go_on.wait()
        running -= 1
        writer.write(answer(b"", "Content-Length: 0"))

    async with allowing(server, concurrency=3) as node:
        calls = [
            asyncio.create_task(ask(node, *(server.raw(f"/{call}/{row}", counted) for row in range(5))))
            for call in range(2)
        ]
        await full.wait()
        go_on.set()
        await asyncio.gather(*calls)
    assert (most, len(server.asked)) == (3, 10)


async def test_unloaded_in_the_middle_a_fetch_is_unavailable(server: Origin) -> None:
    async with allowing(server) as node:
        task = asyncio.create_task(ask(node, server.raw("/a", dribbling)))
        await server.begun.wait()
    with pytest.raises(Unavailable):
        await task


async def test_files_and_urls_go_together(server: Origin, tmp_path: Any) -> None:
    (tmp_path / "a").write_bytes(b"file")
    assert await get(server, "file:a", server.body("/a", b"web"), roots=[tmp_path]) == [b"file", b"web"]
    assert await fetch("file:a", roots=[tmp_path], hosts=["example.com"]) == [b"file"]
