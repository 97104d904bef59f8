"""Who may be told of a job's end: what is taken, what is refused, and which addresses a name may stand for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import InvalidInput, SetupError
from mesh.hosts import AllowedHosts
from mesh.jobs.callbacks.hosts import is_guarded
from mesh.jobs.callbacks.targets import CallbackSettings, Target, check_callback
from mesh.jobs.records import Callback

ALLOWED = (
    "localhost:8080",
    "hooks.example.com",
    "*.example.org:8443",
    "*.example.net",
    "10.0.0.7",
    "[fd00::7]:50051",
    "127.0.0.1:9",
    "169.254.169.254",
)


def allowing(*hosts: str) -> CallbackSettings:
    return CallbackSettings(hosts=AllowedHosts(hosts))


def url(text: str, *hosts: str) -> Target:
    return check_callback(Callback(url=text), allowing(*(hosts or ALLOWED)))


def listener(text: str) -> Target:
    return check_callback(Callback(listener=text), allowing(*ALLOWED))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://localhost:8080/a?b=c", "http://localhost:8080/a?b=c"),
        ("HTTPS://Hooks.Example.com", "https://hooks.example.com/"),
        ("http://hooks.example.com:80?x", "http://hooks.example.com/?x"),
        ("https://a.b.example.org:8443/%20", "https://a.b.example.org:8443/%20"),
        ("http://x.example.net/", "http://x.example.net/"),
        ("http://10.0.0.7/", "http://10.0.0.7/"),
        ("http://[FD00:0:0::7]:50051/", "http://[fd00::7]:50051/"),
    ],
)
def test_a_url_that_is_allowed_is_told_as_it_is_written(text: str, told: str) -> None:
    assert url(text).url == told


def test_a_listener_that_is_allowed_is_read() -> None:
    assert listener("grpc://[fd00::7]:50051") == Target("grpc", "[fd00::7]", 50051)
    assert listener("grpc://localhost:8080/") == Target("grpc", "localhost", 8080)


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com/",
        "http://hooks.example.com:8080/",
        "http://hooks.example.com.evil.test/",
        "http://evilhooks.example.com.test/",
        "http://example.net/",
        "http://x.example.org/",
        "https://10.0.0.7:80/",
        "http://localhost/",
        "http://127.0.0.1/",
        "http://10.0.0.8/",
        "http://localhost.:8080/",
    ],
)
def test_what_is_not_on_the_list_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"not allowed: the topology|cannot be read"):
        url(text)


def test_a_listener_without_a_port_of_its_own_on_the_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"callbacks to hooks\.example\.com:443 are not allowed"):
        listener("grpc://hooks.example.com:443")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ftp://localhost:8080/", "no http: or https: URL"),
        ("http:/localhost:8080/", "no http: or https: URL"),
        ("http://localhost:8080/#part", "no http: or https: URL"),
        ("http://me:word@localhost:8080/", "name or password"),
        ("http://localhost:8080@10.0.0.7/", "name or password"),
        ("http://localhost:99999/", "no such port"),
        ("http://localhost:0/", "no such port"),
        ("http://0x7f.1/", "four decimal numbers"),
        ("http://2130706433/", "four decimal numbers"),
        ("http://0177.0.0.1/", "four decimal numbers"),
        ("http://[::1%25lo]/", "no host name"),
        ("http://[fffff::1]/", "no IPv6 address"),
        ("http:///path", "no host name"),
        ("http://local host:8080/", "plain ASCII"),
        ("http://localhost:8080/\r\nX: y", "plain ASCII"),
        ("http://localhost:8080/ü", "plain ASCII"),
        ("http://localhost:8080\\@10.0.0.7/", "name or password"),
        ("http://localhost:8080/" + "a" * 2048, "at most 2048"),
    ],
)
def test_a_target_that_cannot_be_read_says_why(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        url(text)


@pytest.mark.parametrize("text", ["localhost:8080", "grpc://localhost", "grpc://localhost:8080/path", "grpcs://a:1"])
def test_a_listener_is_written_with_its_port_and_nothing_else(text: str) -> None:
    with pytest.raises(InvalidInput, match="grpc://host:port"):
        listener(text)


@pytest.mark.parametrize("callback", [Callback(), Callback(url="http://localhost:8080/", listener="grpc://a:1")])
def test_a_callback_has_one_target(callback: Callback) -> None:
    with pytest.raises(InvalidInput, match="either a url or a listener"):
        check_callback(callback, allowing(*ALLOWED))


def test_nobody_may_be_told_unless_the_topology_says_so() -> None:
    assert not AllowedHosts(())
    with pytest.raises(InvalidInput, match="not allowed"):
        check_callback(Callback(url="http://example.com/"), CallbackSettings(hosts=AllowedHosts(())))


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_any_text_is_either_an_allowed_target_or_refused(text: str) -> None:
    for callback in (Callback(url=text), Callback(listener=text), Callback(url=f"http://{text}")):
        try:
            target = check_callback(callback, allowing(*ALLOWED))
        except InvalidInput:
            continue
        assert target.host in {"localhost", "hooks.example.com", "10.0.0.7", "[fd00::7]", "127.0.0.1"} | {
            "169.254.169.254"
        } or target.host.endswith((".example.org", ".example.net"))


@pytest.mark.parametrize("entry", ["", "http://a", "a/b", "*.10.0.0.1", "*", "a:0", "a:b", "*.*.a", "a b"])
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(SetupError, match="callbacks are allowed to"):
        AllowedHosts([entry], "callbacks are allowed to")


GUARDED = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:0001::1",
    "2001:0:7f00:1::",
    "no address",
]


@pytest.mark.parametrize("address", GUARDED)
def test_a_name_never_leads_to_a_guarded_address(address: str) -> None:
    assert is_guarded(address)
    assert not url("http://hooks.example.com/").reaches(address)
    assert not url("http://x.example.net/").reaches(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "10.0.0.7", "192.168.1.1", "172.16.0.1", "2600::1", "fd00::7"])
def test_a_name_may_lead_to_any_other_host(address: str) -> None:
    assert not is_guarded(address)
    assert url("http://hooks.example.com/").reaches(address)


def test_what_the_list_spells_out_is_reached() -> None:
    assert url("http://127.0.0.1:9/").reaches("127.0.0.1")
    assert not url("http://127.0.0.1:9/").reaches("127.0.0.2")
    assert url("http://169.254.169.254/").reaches("169.254.169.254")
    for address in ("127.0.0.1", "::1"):
        assert url("http://localhost:8080/").reaches(address)
    assert not url("http://localhost:8080/").reaches("169.254.169.254")


def test_a_target_is_told_without_its_path() -> None:
    assert str(url("http://localhost:8080/a?key=secret")) == "http://localhost:8080"
