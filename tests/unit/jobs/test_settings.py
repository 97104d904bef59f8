"""What a graph says of its jobs, as the store, the workers and the callbacks are told it."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mesh.errors import SetupError
from mesh.hosts import AllowedHosts
from mesh.jobs import settings
from mesh.jobs.settings import callback_settings, check_installed, store_settings, work_policy
from mesh.jobs.store.settings import StoreSettings, StoreTls
from mesh.jobs.work.backoff import Backoff
from mesh.topology import Graph, GraphCallbacks, GraphJobs, GraphLimits, GraphTls
from mesh.topology.spec_jobs import CallbacksFile

GRAPH = Graph(name="digits", file="t.yaml", model_root="/", limits=GraphLimits(), inputs={}, nodes=(), outputs={})
JOBS = GraphJobs(servers=("nats://a", "nats://b"), folder="/data")


def graph(**changes: object) -> Graph:
    return replace(GRAPH, jobs=replace(JOBS, **changes))  # pyright: ignore[reportArgumentType]


def test_a_store_is_told_every_bound() -> None:
    told = store_settings(
        graph(
            tls=GraphTls(ca="/ca", cert="/cert", key="/key"),
            replicas=3,
            payloads="s3://bucket",
            lease_s=1.5,
            attempts=2,
            ttl_s=3.0,
            dead_ttl_s=4.0,
            dead_max_bytes=5,
            max_queued=6,
            max_queued_bytes=7,
            max_payload_bytes=8,
        )
    )
    assert told == StoreSettings(
        graph="digits",
        servers=("nats://a", "nats://b"),
        tls=StoreTls(ca="/ca", cert="/cert", key="/key"),
        replicas=3,
        folder="/data",
        payloads="s3://bucket",
        lease_s=1.5,
        attempts=2,
        result_ttl_s=3.0,
        dead_ttl_s=4.0,
        dead_max_bytes=5,
        max_queued=6,
        max_queued_bytes=7,
        max_payload_bytes=8,
    )


def test_what_a_file_leaves_out_is_what_a_store_takes_for_granted() -> None:
    assert store_settings(graph()) == StoreSettings(graph="digits", servers=("nats://a", "nats://b"), folder="/data")


def test_credentials_are_a_user_and_a_password_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("me:a:b c\n")
    told = store_settings(graph(credentials=str(file)))
    assert (told.user, told.password, told.credentials) == ("me", "a:b c", "")
    assert "a:b c" not in repr(told)


@pytest.mark.parametrize("text", ["", "me", "me:", ":secret", "me:a\nyou:b"])
def test_what_are_no_credentials_is_told_without_them(text: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(SetupError) as refused:
        store_settings(graph(credentials=str(file)))
    assert str(refused.value) == f"{file}: neither user:password in one line, nor a NATS credentials file"


def test_a_file_of_nats_is_left_to_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "me.creds"
    file.write_text("-----BEGIN NATS USER JWT-----\neyJ0eXAi\n------END NATS USER JWT------\n")

    def found(name: str) -> object | None:
        return installed.get(name)

    installed: dict[str, object] = {}
    monkeypatch.setattr(settings, "find_spec", found)
    with pytest.raises(SetupError, match="pip install nkeys"):
        store_settings(graph(credentials=str(file)))
    installed["nkeys"] = object()
    told = store_settings(graph(credentials=str(file)))
    assert (told.user, told.password, told.credentials) == ("", "", str(file))


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for file, why in (("none", "No such file or directory"), ("binary", "no text in UTF-8"), ("long", "longer than")):
        (tmp_path / "binary").write_bytes(b"\xff")
        (tmp_path / "long").write_text("x" * 70_000)
        with pytest.raises(SetupError, match=f"{file}: {why}"):
            store_settings(graph(credentials=str(tmp_path / file)))


def test_whoever_is_told_of_a_jobs_end_is_allowed_and_can_check_the_signature(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"whsec_{base64.b64encode(b'k' * 32).decode()}\n")
    told = callback_settings(
        replace(JOBS, callbacks=GraphCallbacks(allow=("a.b:80",), key_file=str(file), attempts=2, timeout_s=3.0))
    )
    assert (told.keys, told.attempts, told.timeout_s) == ((b"k" * 32,), 2, 3.0)
    assert callback_settings(JOBS).keys == ()
    file.write_text("short\n")
    with pytest.raises(SetupError, match="keys:1: a key for callbacks"):
        callback_settings(replace(JOBS, callbacks=GraphCallbacks(allow=("a.b",), key_file=str(file))))


@given(st.text("aA0129.:*[]-_xf", max_size=20))
def test_a_host_that_a_file_may_name_is_one_that_callbacks_take(entry: str) -> None:
    try:
        allowed = CallbacksFile(allow=[entry]).allow
    except ValidationError:
        return
    AllowedHosts(allowed)


def test_waits_between_attempts_are_those_of_the_file() -> None:
    policy = work_policy(replace(JOBS, backoff_first_s=0.5, backoff_most_s=7.0))
    assert policy.backoff == Backoff(first_s=0.5, most_s=7.0)


def test_what_is_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: dict[str, object] = {"nats": object(), "obstore": object()}

    def found(name: str) -> object | None:
        return installed.get(name)

    monkeypatch.setattr(settings, "find_spec", found)
    in_buckets = replace(JOBS, payloads="s3://bucket")
    check_installed(in_buckets)
    del installed["obstore"]
    check_installed(JOBS)
    with pytest.raises(SetupError, match=r"obstore.*pip install 'inference-mesh\[s3\]'"):
        check_installed(in_buckets)
    del installed["nats"]
    with pytest.raises(SetupError, match=r"nats-py.*pip install 'inference-mesh\[nats\]'"):
        check_installed(JOBS)
