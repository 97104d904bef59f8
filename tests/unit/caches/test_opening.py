"""From an address to a backend, and what is wrong with others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.caches import SCHEMES, BackendSettings, CacheBackend, check_backend, open_backend
from mesh.caches.addresses import RedisAddress, parse_redis, scheme_of
from mesh.caches.memory import MemoryBackend
from mesh.caches.redis import RedisBackend
from mesh.caches.tiers import TieredBackend
from mesh.context import Clock
from mesh.errors import SetupError

SETTINGS = BackendSettings()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", RedisAddress(host="host", port=6379)),
        ("redis://host/", RedisAddress(host="host", port=6379)),
        ("redis://10.0.0.1:7000/3", RedisAddress(host="10.0.0.1", port=7000, db=3)),
        ("redis://[::1]:7000", RedisAddress(host="::1", port=7000)),
        ("redis://:p%40ss@host", RedisAddress(host="host", port=6379, password="p@ss")),
        ("redis://user:pass@host", RedisAddress(host="host", port=6379, username="user", password="pass")),
        ("rediss://host:6380", RedisAddress(host="host", port=6380, tls=True)),
        ("redis+unix:/run/v.sock", RedisAddress(path="/run/v.sock")),
        ("redis+unix:/run/v.sock?db=2", RedisAddress(path="/run/v.sock", db=2)),
        ("redis+unix://:pass@/run/v.sock", RedisAddress(path="/run/v.sock", password="pass")),
    ],
)
def test_addresses_are_read(url: str, address: RedisAddress) -> None:
    assert parse_redis(url) == address
    # What is shown has no password, and is the address otherwise.
    assert "pass" not in address.url
    assert "p@ss" not in repr(address)
    assert parse_redis(address.url) == replace(address, password="")


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("redis://", "names no host"),
        ("redis://:7000", "names no host"),
        ("redis://host:0", "names no port"),
        ("redis://host:70000", "cannot be read"),
        ("redis://host:secret@x:y", "cannot be read"),
        ("redis://[::1", "cannot be read"),
        ("redis://" + "a" * 70 + ".example", "names no host"),
        ("redis://host/db", "no number of a database"),
        ("redis://host/1/2", "no number of a database"),
        ("redis://host/99999", "no number of a database"),
        ("redis://host?db=1", "after its ?"),
        ("redis://host#1", "a # or a space"),
        ("redis://ho st", "a # or a space"),
        ("redis+unix:run/v.sock", "no absolute path"),
        ("redis+unix:/", "no absolute path"),
        ("redis+unix://host/run/v.sock", "no absolute path"),
        ("redis+unix:/run/v.sock?db=x", "no number of a database"),
        ("redis+unix:/run/v.sock?x=1", "only db=N is known"),
        ("redis+unix:/" + "x" * 100, "at most 100 bytes"),
        ("memory://host", "write memory://"),
        ("memory", "no address of a cache"),
        ("", "no address of a cache"),
        ("://", "no address of a cache"),
        ("memcached://host", "no cache backend is called 'memcached': there are memory:"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, wrong: str) -> None:
    with pytest.raises(SetupError) as refused:
        check_backend(url)
    assert wrong in str(refused.value)
    assert "secret" not in str(refused.value)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    for url in (text, *(f"{scheme}:{slashes}{text}" for scheme in SCHEMES for slashes in ("", "//"))):
        try:
            check_backend(url)
        except SetupError:
            continue
        assert scheme_of(url) in SCHEMES


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"max_bytes": 4095}, "at least 4096"),
        ({"max_bytes": -1}, "at least 4096"),
        ({"max_value_bytes": 0}, "at least 1"),
        ({"max_ttl_s": 0.0}, "time to live has to be above zero"),
        ({"max_ttl_s": -1.0}, "time to live has to be above zero"),
        ({"max_ttl_s": float("nan")}, "time to live has to be above zero"),
        ({"timeout_s": 0.0}, "timeout has to be above zero"),
        ({"timeout_s": float("inf")}, "timeout has to be above zero"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changed: dict[str, Any], wrong: str) -> None:
    with pytest.raises(SetupError, match=wrong):
        open_backend("memory://", replace(SETTINGS, **changed))


def test_a_bound_smaller_than_one_value_is_refused() -> None:
    check_backend("memory://", replace(SETTINGS, max_bytes=10_000), value_bytes=9_000)
    check_backend("redis://host", replace(SETTINGS, max_bytes=10_000), value_bytes=10_000)
    with pytest.raises(SetupError, match="of 10000 bytes cannot hold a value of 9500: that takes 10020"):
        check_backend(["redis://host", "memory://"], replace(SETTINGS, max_bytes=10_000), value_bytes=9_500)
    with pytest.raises(SetupError, match="at most 100 bytes cannot hold one of 101"):
        check_backend("redis://host", replace(SETTINGS, max_value_bytes=100), value_bytes=101)


@pytest.mark.parametrize(
    ("tiers", "wrong"),
    [
        ([], "2 to 8 tiers, and not 0"),
        (["memory://"], "2 to 8 tiers, and not 1"),
        (["memory://", "memory://"], "a tier twice"),
        ([f"redis://host{number}" for number in range(9)], "2 to 8 tiers, and not 9"),
        (["memory://", "redis://"], "names no host"),
        (["memory://", 7], "no address of a cache"),
    ],
)
def test_tiers_that_cannot_be_meant_are_refused(tiers: Sequence[Any], wrong: str) -> None:
    with pytest.raises(SetupError, match=wrong):
        open_backend(tiers)


async def test_backends_are_opened_by_their_scheme_and_connect_to_nothing_yet() -> None:
    kinds: list[tuple[str | list[str], type[object]]] = [
        ("memory://", MemoryBackend),
        ("redis://nowhere.invalid", RedisBackend),
        ("rediss://nowhere.invalid", RedisBackend),
        ("redis+unix:/nowhere/v.sock", RedisBackend),
        (["memory://", "redis://nowhere.invalid"], TieredBackend),
    ]
    for where, kind in kinds:
        backend = open_backend(where)
        assert type(backend) is kind
        assert backend.url.startswith("[memory://, redis://nowhere" if isinstance(where, list) else where)
        await backend.close()


async def test_other_backends_are_opened_by_who_knows_them() -> None:
    asked: list[tuple[str, BackendSettings]] = []

    def opened(url: str, settings: BackendSettings, clock: Clock) -> CacheBackend:
        asked.append((url, settings))
        return MemoryBackend(clock=clock)

    small = replace(SETTINGS, max_bytes=8192)
    backend = open_backend(["memory://", "mesh://front/shared"], small, openers={"mesh": opened})
    assert isinstance(backend, TieredBackend)
    assert asked == [("mesh://front/shared", small)]
    with pytest.raises(SetupError, match="no cache backend is called 'mesh'"):
        open_backend("mesh://front/shared")


def test_without_redis_py_an_address_that_needs_it_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in ("mesh.caches.redis", "mesh.caches.redis_client", "mesh.caches.redis_keyspace"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # Checking needs nothing; opening does.
    check_backend("rediss://:secret@host")
    with pytest.raises(SetupError) as refused:
        open_backend(["memory://", "rediss://:secret@host"])
    wanted = "a cache at rediss: needs redis-py: pip install 'inference-mesh[redis]'"
    assert str(refused.value) == wanted
    open_backend("memory://")
