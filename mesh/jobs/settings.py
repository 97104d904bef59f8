"""What a graph says of its jobs, for the parts that keep to it; and what has to be installed for that."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mesh.errors import SetupError
from mesh.hosts import AllowedHosts
from mesh.jobs.callbacks.signing import read_keys
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.store.settings import StoreSettings, StoreTls
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.carrying import WorkPolicy
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphJobs

__all__ = ["callback_settings", "check_installed", "store_settings", "work_policy"]

_MAX_FILE_BYTES = 65_536


def check_installed(jobs: GraphJobs) -> None:
    """See that the packages are there that a graph's jobs need.

    Raises:
        SetupError: One is not; says what to install.
    """
    needed = [("nats", "nats-py", "nats")]
    if jobs.payloads:
        needed.append(("obstore", "obstore", "s3"))
    for module, package, extra in needed:
        if find_spec(module) is None:
            text = f"jobs need the package {package}, which is not installed"
            raise SetupError(f"{text}: pip install 'inference-mesh[{extra}]'")


def store_settings(graph: Graph) -> StoreSettings:
    """Where the store of a graph's jobs is, and its bounds. The graph says which servers, also where they are ours.

    Raises:
        SetupError: The file of credentials cannot be read, or is none.
    """
    jobs = graph.jobs
    assert jobs is not None
    user, password, credentials = _credentials(jobs.credentials)
    tls = jobs.tls
    return StoreSettings(
        graph=graph.name,
        servers=jobs.servers,
        user=user,
        password=password,
        credentials=credentials,
        tls=None if tls is None else StoreTls(ca=tls.ca, cert=tls.cert, key=tls.key),
        replicas=jobs.replicas,
        folder=jobs.folder,
        payloads=jobs.payloads,
        lease_s=jobs.lease_s,
        attempts=jobs.attempts,
        result_ttl_s=jobs.ttl_s,
        dead_ttl_s=jobs.dead_ttl_s,
        dead_max_bytes=jobs.dead_max_bytes,
        max_queued=jobs.max_queued,
        max_queued_bytes=jobs.max_queued_bytes,
        max_payload_bytes=jobs.max_payload_bytes,
    )


def _credentials(file: str) -> tuple[str, str, str]:
    """User and password, or the path of a NATS credentials file."""
    if not file:
        return "", "", ""
    text = _text(file)
    if "-----BEGIN NATS USER JWT-----" in text:
        if find_spec("nkeys") is None:
            raise SetupError(f"{file}: to read it the package nkeys has to be installed: pip install nkeys")
        return "", "", file
    user, colon, password = text.strip().partition(":")
    if not (user and colon and password) or "\n" in password:
        raise SetupError(f"{file}: neither user:password in one line, nor a NATS credentials file")
    return user, password, ""


def callback_settings(jobs: GraphJobs) -> CallbackSettings:
    """Who may be told of a job's end.

    Raises:
        SetupError: The file of keys cannot be read, or is none.
    """
    callbacks = jobs.callbacks
    return CallbackSettings(
        hosts=AllowedHosts(callbacks.allow, "callbacks are allowed to"),
        keys=read_keys(_text(callbacks.key_file), callbacks.key_file) if callbacks.key_file else (),
        attempts=callbacks.attempts,
        timeout_s=callbacks.timeout_s,
    )


def work_policy(jobs: GraphJobs) -> WorkPolicy:
    """How a worker goes about jobs."""
    return WorkPolicy(backoff=Backoff(first_s=jobs.backoff_first_s, most_s=jobs.backoff_most_s))


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise SetupError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{file}: no text in UTF-8") from None
    if len(data) > _MAX_FILE_BYTES:
        raise SetupError(f"{file}: longer than {_MAX_FILE_BYTES} bytes")
    return text
