from __future__ import annotations

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import InvalidInput, SetupError
from mesh.hosts import PORTS, AllowedHosts, split_authority
from nodes.fetch.addresses import is_public
from nodes.fetch.references import MAX_REFERENCE, FileReference, ObjectReference, WebReference, reference_of


def refused(text: str | bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        reference_of(text.encode() if isinstance(text, str) else text)
    return caught.value.text


def web(text: str) -> WebReference:
    found = reference_of(text.encode())
    assert isinstance(found, WebReference)
    return found


@pytest.mark.parametrize(
    "spelling",
    [
        "HTTP://Example.COM/a?b=c",
        "http://example.com:80/a?b=c",
        "http://example.com/a?b=c#part",
        "http://example.com:/a?b=c",
    ],
)
def test_spellings_of_one_url_are_equal(spelling: str) -> None:
    assert web(spelling) == WebReference("http", "example.com", 80, "/a?b=c")


def test_a_url_is_asked_for_as_it_was_escaped() -> None:
    assert web("https://h.org/a%2Fb%20c?x=%2f+&y").url == "https://h.org/a%2Fb%20c?x=%2f+&y"
    assert web("https://h.org:8443").url == "https://h.org:8443/"
    assert web("https://h.org/ü|").url == "https://h.org/%C3%BC%7C"


@pytest.mark.parametrize(
    "text",
    [
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@evil.org/",
        "http://example.com%40evil.org/",
        "http://example.com:80@evil.org/",
        "http://@example.com/",
    ],
)
def test_userinfo_is_refused_and_not_repeated(text: str) -> None:
    assert "secret" not in refused(text)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.01",
        "1.2.3.256",
        "127.0.0.1.",
        "1.2.3",
        "0x",
    ],
)
def test_odd_spellings_of_ipv4_are_refused(host: str) -> None:
    refused(f"http://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        "[::1%25eth0]", "[fe80::1%eth0]", "[::1", "::1", "[127.0.0.1]", "[::ffff:127.0.0.01]", "[1:2]", "[]", "[v1.x]",
    ],
)  # fmt: skip
def test_odd_spellings_of_ipv6_are_refused(host: str) -> None:
    refused(f"http://{host}/")


def test_ipv6_has_one_spelling() -> None:
    assert web("http://[0:0:0:0:0:0:0:1]:81/").host == "[::1]"
    assert web("http://[2001:DB8::00]/").host == "[2001:db8::]"


@pytest.mark.parametrize(
    "text",
    [
        "http:///path", "http:example.com", "http:/example.com", "http://", "http://a b/", "http://a/ b", "http://a\\b/",
        "http://example.com\\@evil.org", "http://ex\u00e4mple.com/", "http://\uff11\uff12\uff17.0.0.1/", "http://a..b/",
        "http://\u24d4xample.com/", "http://loc\u00adalhost/", "http://a%2eb/", "http://-a/", "http://a:0/",
        "http://a:65536/", "http://a:99999999/", "http://a:8o/", "http://a:+80/", "http://a:\u0661/", "http://a/%zz",
        "http://a/%", "http://a/\u00a0",
    ],
)  # fmt: skip
def test_urls_of_which_programs_differ_are_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "a.png", "/etc/passwd", "//h/a", "ftp://h/a", "gopher://h/", "data:,x", "javascript:0", "http", ":", "1:a",
        " http://h/", "http\n://h/", "http://h/\r\nHost: evil", "http://h/\0", b"http://h/\xff", b"\xef\xbb\xbfhttp://h/",
        "\u202ehttp://h/", "x" * 300 + "://h/",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str | bytes) -> None:
    refused(text)


def test_a_long_reference_is_refused() -> None:
    start = "http://h/"
    assert web(start + "a" * (MAX_REFERENCE - len(start)))
    assert str(MAX_REFERENCE) in refused(start + "a" * (MAX_REFERENCE - len(start) + 1))


@pytest.mark.parametrize(
    ("text", "absolute", "parts"),
    [
        ("file:a/b.png", False, ("a", "b.png")),
        ("FILE:./a//b.png", False, ("a", "b.png")),
        ("file:/a/b", True, ("a", "b")),
        ("file:///a/b", True, ("a", "b")),
        ("file://localhost/a/b", True, ("a", "b")),
        ("file:a%20b%2Fc%25", False, ("a b", "c%")),
        ("file:%252e%252e/a", False, ("%2e%2e", "a")),
        ("file:a\\b", False, ("a\\b",)),
        ("file:...", False, ("...",)),
    ],
)
def test_files(text: str, absolute: bool, parts: tuple[str, ...]) -> None:
    assert reference_of(text.encode()) == FileReference(absolute, parts)


@pytest.mark.parametrize(
    "text",
    [
        "file:", "file:/", "file://", "file:///", "file:.", "file:..", "file:../a", "file:a/../../b", "file:a/..",
        "file:%2e%2e/a", "file:.%2E/a", "file:..%2fa", "file:///a/../../etc/passwd", "file://host/a", "file://h@/a",
        "file:a%00b", "file:a?b", "file:a#b", "file:a%", "file:a%zz", "file:a\0b", "file:a\nb",
    ],
)  # fmt: skip
def test_files_that_are_refused(text: str) -> None:
    refused(text)


def test_objects() -> None:
    assert reference_of(b"s3://pages/a/b%20c?d#e") == ObjectReference("pages", "a/b%20c?d#e")


@pytest.mark.parametrize(
    "text",
    ["s3:", "s3://", "s3://pages", "s3://pages/", "s3:pages/a", "s3://PAGES/a", "s3://pa ges/a", "s3://u@pages/a",
     "s3://pages/../other/a", "s3://pages//a", "s3://pages/a/./b", "s3://pages/a/"],
)  # fmt: skip
def test_objects_that_are_refused(text: str) -> None:
    refused(text)


def test_a_reference_is_shown_without_its_query_and_in_ascii() -> None:
    assert str(web("https://h.org/a?signature=secret")) == "https://h.org/a"
    assert str(reference_of("file:\u00fc\u202e".encode())) == "file:\\xfc\\u202e"
    assert str(reference_of(b"file:%ff")).isascii()
    assert len(str(web("http://h/" + "a" * 5000))) < 300


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b", "http://h.org/b"),
        ("b?c", "http://h.org/a/b?c"),
        ("//other.org/b", "http://other.org/b"),
        ("https://h.org/b#c", "https://h.org/b"),
    ],
)
def test_a_redirect_is_relative_to_where_it_came_from(location: str, url: str) -> None:
    assert web("http://h.org/a/x").redirected(location).url == url


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "s3://pages/a", "ftp://h/", "http://u:p@h/", "http://127.1/", "http://h/ b", "\udcff", "",
     "//user@h/", "\\\\h\\b", "http://[::1", "data:,x"],
)  # fmt: skip
def test_a_redirect_to_what_is_no_url_is_refused_and_not_repeated(location: str) -> None:
    with pytest.raises(InvalidInput, match=r"^it redirects to what is no http: or https: URL$"):
        web("http://h.org/a").redirected(location)


def test_a_redirect_does_not_lead_out_of_tls() -> None:
    with pytest.raises(InvalidInput, match="from https: to http:"):
        web("https://h.org/a").redirected("http://h.org/a")


@given(st.text(max_size=40) | st.from_regex(r"(http|file|s3):/?/?[\[a-z0-9:.@%\\\]/?#-]{0,20}", fullmatch=True))
def test_whatever_is_taken_is_taken_again_alike(text: str) -> None:
    try:
        found = reference_of(text.encode())
    except InvalidInput:
        return
    if isinstance(found, WebReference):
        again = found.url
    elif isinstance(found, FileReference):
        assert ".." not in found.parts
        again = "file:" + "/" * found.absolute + quote("/".join(found.parts), errors="surrogateescape")
    else:
        again = f"s3://{found.bucket}/{found.key}"
    assert reference_of(again.encode()) == found


@given(st.binary(max_size=60))
def test_whatever_bytes_come_only_invalid_input_is_raised(data: bytes) -> None:
    for start in (b"", b"http://", b"file:", b"s3://"):
        with contextlib.suppress(InvalidInput):
            reference_of(start + data)


def allows(entry: str, url: str) -> bool:
    found = web(url)
    return AllowedHosts([entry]).allow(found.host, found.port, PORTS[found.scheme])


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("example.com", "http://example.com/", True),
        ("Example.COM", "https://example.com/", True),
        ("example.com", "http://example.com:81/", False),
        ("example.com", "http://example.com:443/", False),
        ("example.com:81", "http://example.com:81/", True),
        ("example.com:81", "http://example.com/", False),
        ("example.com", "http://www.example.com/", False),
        ("example.com", "http://example.com.evil.org/", False),
        ("example.com", "http://notexample.com/", False),
        ("*.example.com", "http://www.example.com/", True),
        ("*.example.com", "http://a.b.example.com/", True),
        ("*.example.com", "http://example.com/", False),
        ("*.example.com", "http://notexample.com/", False),
        ("*.example.com", "http://www.example.com.evil.org/", False),
        ("*.example.com:81", "http://www.example.com:81/", True),
        ("*.example.com:81", "http://www.example.com/", False),
        ("127.0.0.1", "http://127.0.0.1/", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/", False),
        ("[::0001]:81", "http://[::1]:81/", True),
        ("[::1]", "http://[::1]/", True),
    ],
)
def test_allowed_hosts(entry: str, url: str, allowed: bool) -> None:
    assert allows(entry, url) is allowed


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "a*.b", "*.*.b", "http://a", "a/b", "a:0", "a b", "u@a", "::1", "*.1.2.3.4", "*.[::1]", "127.1"],
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(SetupError, match="hosts has"):
        AllowedHosts([entry])


def test_a_host_of_many_labels_is_a_name() -> None:
    assert split_authority("a.b.c.d.e.f:1") == ("a.b.c.d.e.f", 1)
    assert split_authority("1.example.com") == ("1.example.com", None)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "168.63.129.16", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1",
        "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1",
        "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
        "2002:7f00:1::", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "2600::1%1", "fec0::1",
        "ff02::1", "localhost", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "168.63.129.17", "223.255.255.255", "2606:4700::1111", "64:ff9b::808:808"],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)
