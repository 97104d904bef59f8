"""What `jobs:` and `schedules:` may say: the shape of each part, held by pydantic.

Every default stands here, and nowhere else.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, WithJsonSchema

from mesh.topology.source import shown
from mesh.units import Duration, Size

__all__ = [
    "BACKOFF_LONGEST_S",
    "JOB_STAND_INS",
    "LONGEST_S",
    "MAX_SCHEDULES",
    "BatchFoldersFile",
    "CallbacksFile",
    "DeadLetterFile",
    "JobsFile",
    "ScheduleFile",
    "ScheduledBatchFile",
]

LONGEST_S = 366 * 86_400
"""Most that anything is kept: a year, in seconds."""
BACKOFF_LONGEST_S = 86_400
MAX_SCHEDULES = 256
_REPLICAS = (1, 3, 5)

_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?"
_SERVER_PATTERN = rf"^(nats|tls)://({_HOST})(:\d{{1,5}})?$"
_ALLOWED_PATTERN = rf"^(\*\.)?({_HOST})(:\d{{1,5}})?$"
_BUCKET_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()/-]{1,512})?$"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""Of the last label of a name: then it is an address, or would be taken for one (as in `mesh.jobs.callbacks.hosts`)."""
_SERVER, _ALLOWED, _BUCKET = re.compile(_SERVER_PATTERN), re.compile(_ALLOWED_PATTERN), re.compile(_BUCKET_PATTERN)


def _check_port(value: str) -> None:
    port = re.search(r":(\d+)$", value)
    if port is not None and not 1 <= int(port[1]) <= 65535:
        raise ValueError(f"{port[1]} is no port: the last one is 65535")


def _server(value: str) -> str:
    if "@" in value:
        # Graphs are printed, and written into launch files.
        raise ValueError("a password has no place in an address: write it into a file, and name that as credentials")
    if _SERVER.fullmatch(value) is None:
        raise ValueError(f"{shown(value)} is no address of a store: write nats://host:4222 or tls://host:4222")
    _check_port(value)
    return value


def _allowed(value: str) -> str:
    value = value.lower()
    matched = _ALLOWED.fullmatch(value)
    if matched is None:
        raise ValueError(f"{shown(value)} names no host: write host, host:port or *.domain, without a scheme or a path")
    _check_port(value)
    below, host = matched[1], matched[2]
    if host.startswith("[") or _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        try:
            ip_address(host.strip("[]"))
        except ValueError:
            raise ValueError(f"{shown(host)} is no IP address as it is usually written") from None
        if below:
            raise ValueError(f"{shown(host)} is an address, which has no names below it")
    elif not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError(f"{shown(host)} is no name of a host")
    return value


def _bucket(value: str) -> str:
    if _BUCKET.fullmatch(value) is None or "//" in value.removeprefix("s3://"):
        raise ValueError(f"{shown(value)} is no place for payloads: write s3://bucket/prefix, or leave it out")
    return value.rstrip("/")


Server = Annotated[
    str, AfterValidator(_server), WithJsonSchema({"type": "string", "pattern": _SERVER_PATTERN, "maxLength": 300})
]
"""`nats://host:port` or `tls://host:port`; port 4222 unless it says."""
Allowed = Annotated[str, AfterValidator(_allowed), WithJsonSchema({"type": "string", "pattern": _ALLOWED_PATTERN})]
"""`host`, `host:port`, `*.domain` or `*.domain:port`."""
Bucket = Annotated[str, AfterValidator(_bucket), WithJsonSchema({"type": "string", "pattern": _BUCKET_PATTERN})]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]
"""Of a file or a folder, relative to the topology file."""
Template = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]
"""The same, with `{date}`, `{time}` and `{schedule}` in it."""
Column = Annotated[str, StringConstraints(min_length=1, max_length=256)]


def _parameter(value: str | bool | int | float) -> str | bool | int | float:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} does not fit into 64 bits with a sign")
    return value


Parameter = Annotated[str | bool | int | float, AfterValidator(_parameter)]


def _replicas(value: int) -> int:
    if value not in _REPLICAS:
        raise ValueError(f"a message is kept 1, 3 or 5 times, and not {value}")
    return value


def _store_form(value: object) -> str | None:
    return "list" if isinstance(value, list) else "text" if value == "embedded" else None


def _on_error_form(value: object) -> str | None:
    return "mapping" if isinstance(value, dict | StopAfterFile) else "text" if isinstance(value, str) else None


class JobPart(BaseModel):
    """As `mesh.topology.spec.Part`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TlsFile(JobPart):
    """Files for TLS to the store."""

    ca: Annotated[FilePath | None, Field(description="Certificates that the servers' are held against.")] = None
    cert: Annotated[FilePath | None, Field(description="Our own certificate; goes with key.")] = None
    key: Annotated[FilePath | None, Field(description="Its key.")] = None


class BackoffFile(JobPart):
    """How long a job waits between two attempts: a random time below a bound that doubles."""

    first: Annotated[
        Duration, Field(gt=0, le=BACKOFF_LONGEST_S, description="The bound before the second attempt.")
    ] = 1.0
    most: Annotated[Duration, Field(gt=0, le=BACKOFF_LONGEST_S, description="The most that it grows to.")] = 60.0


class DeadLetterFile(JobPart):
    """Where jobs go that failed for good."""

    ttl: Annotated[Duration, Field(ge=1, le=LONGEST_S, description="How long it keeps one.")] = 14 * 86_400.0
    max_bytes: Annotated[
        Size, Field(ge=1 << 20, le=1 << 44, description="The most that it takes; the oldest goes first.")
    ] = 1 << 30


class CallbacksFile(JobPart):
    """Who may be told of a job's end."""

    allow: Annotated[
        list[Allowed],
        Field(max_length=256, description="host, host:port or *.domain of each that may be told; nobody else is."),
    ] = []
    key_file: Annotated[FilePath | None, Field(description="Holds the key that callbacks are signed with.")] = None
    attempts: Annotated[int, Field(ge=1, le=100, description="Attempts to tell one.")] = 8
    timeout: Annotated[Duration, Field(gt=0, le=60, description="How long one attempt may take.")] = 5.0


class BatchFoldersFile(JobPart):
    """What callers may have batches read and write; nothing unless it is said here."""

    inputs: Annotated[list[FilePath], Field(max_length=64, description="Folders to read from.")] = []
    outputs: Annotated[list[FilePath], Field(max_length=64, description="Folders to write to.")] = []


class JobsFile(JobPart):
    """How jobs are stored, tried and kept."""

    store: Annotated[
        Annotated[Literal["embedded"], Tag("text")]
        | Annotated[list[Server], Field(min_length=1, max_length=16), Tag("list")],
        Discriminator(
            _store_form,
            custom_error_type="store_form",
            custom_error_message="has to be embedded, or a list of addresses such as [nats://host:4222]",
        ),
        Field(description="embedded for a server of the mesh's own, or the addresses of NATS servers elsewhere."),
    ] = "embedded"
    credentials: Annotated[
        FilePath | None,
        Field(description="For servers elsewhere: a file with user:password in one line, or a NATS .creds file."),
    ] = None
    tls: Annotated[TlsFile | None, Field(description="For servers elsewhere: files for TLS.")] = None
    replicas: Annotated[
        int,
        AfterValidator(_replicas),
        Field(
            description="For servers elsewhere: how many of them keep each message.",
            json_schema_extra={"enum": list(_REPLICAS)},
        ),
    ] = 1
    folder: Annotated[
        FilePath | None, Field(description="The data folder, relative to this file; .mesh/NAME if left out.")
    ] = None
    payloads: Annotated[
        Bucket | None,
        Field(description="s3://bucket/prefix for large payloads and results; in the data folder if left out."),
    ] = None
    workers: Annotated[int, Field(ge=1, le=64, description="Processes that work on jobs.")] = 1
    concurrency: Annotated[int, Field(ge=1, le=1024, description="Jobs that each works on at once.")] = 4
    lease: Annotated[
        Duration,
        Field(ge=1, le=3600, description="A worker that is silent for so long has lost its jobs to another."),
    ] = 30.0
    attempts: Annotated[int, Field(ge=1, le=100, description="Attempts at one job, the first included.")] = 8
    backoff: Annotated[BackoffFile, Field(description="How long a job waits between attempts.")] = BackoffFile()
    ttl: Annotated[
        Duration, Field(ge=1, le=LONGEST_S, description="How long a job that is over is kept, and its result.")
    ] = 86_400.0
    dead_letter: Annotated[DeadLetterFile, Field(description="How much is kept of jobs that failed for good.")] = (
        DeadLetterFile()
    )
    max_queued: Annotated[int, Field(ge=1, le=10_000_000, description="Jobs that may wait; more are refused.")] = (
        100_000
    )
    max_queued_bytes: Annotated[
        Size, Field(ge=1 << 20, le=1 << 44, description="Bytes that they may take; more are refused.")
    ] = 1 << 30
    max_payload: Annotated[
        Size, Field(gt=0, le=1 << 30, description="Most tensor bytes that one job is given, or gives.")
    ] = 64 << 20
    callbacks: Annotated[CallbacksFile, Field(description="Who may be told of a job's end.")] = CallbacksFile()
    batches: Annotated[BatchFoldersFile, Field(description="What callers may have batches read and write.")] = (
        BatchFoldersFile()
    )


class StopAfterFile(JobPart):
    """A batch that fails once too many rows have."""

    stop_after: Annotated[int, Field(ge=0, le=1 << 62, description="Rows that may fail.")]


class ScheduledBatchFile(JobPart):
    """The graph, run over files."""

    input: Annotated[Template, Field(description="A file or a folder, relative to this file.")]
    input_format: Annotated[
        Literal["parquet", "csv", "jsonl", "npy", "files"] | None,
        Field(description="What it holds; told by its name if left out."),
    ] = None
    columns: Annotated[
        dict[str, Column],
        Field(description="By input of the graph the column that feeds it; the one of its name if left out."),
    ] = {}
    output: Annotated[
        Template, Field(description="A folder for the results; {date}, {time} and {schedule} stand for when and what.")
    ]
    keep: Annotated[
        list[Column], Field(max_length=1024, description="Columns of the input that are written beside the outputs.")
    ] = []
    outputs: Annotated[
        list[str] | None, Field(min_length=1, description="Outputs of the graph that are written; all if left out.")
    ] = None
    shard_rows: Annotated[
        int | None, Field(ge=1, le=1 << 31, description="Rows a shard, which one worker takes on at a time.")
    ] = None
    request_rows: Annotated[int | None, Field(ge=1, le=1 << 20, description="Rows a request to the graph.")] = None
    on_error: Annotated[
        Annotated[Literal["keep-going", "stop"], Tag("text")] | Annotated[StopAfterFile, Tag("mapping")],
        Discriminator(
            _on_error_form,
            custom_error_type="on_error_form",
            custom_error_message="has to be keep-going, stop, or {stop_after: N}",
        ),
        Field(description="What is done about rows that fail."),
    ] = "keep-going"
    parameters: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], Parameter],
        Field(max_length=64, description="What every request carries beside its tensors."),
    ] = {}


class ScheduleFile(JobPart):
    """A batch that begins by itself."""

    cron: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="When: minute, hour, day, month, weekday, and seconds if there is a sixth.",
        ),
    ]
    timezone: Annotated[
        str, Field(min_length=1, max_length=64, description="Whose time that is, as in Europe/Berlin.")
    ] = "UTC"
    window: Annotated[
        Duration | None,
        Field(ge=1, le=LONGEST_S, description="How long after it was due a batch may run; it is cancelled then."),
    ] = None
    overlap: Annotated[
        Literal["skip", "wait", "cancel"],
        Field(description="If the batch before is not over: skip this one, wait for it, or cancel it."),
    ] = "skip"
    catch_up: Annotated[
        Literal["none", "latest", "all"],
        Field(description="Which of the times that nobody was there for are made up for."),
    ] = "latest"
    batch: Annotated[ScheduledBatchFile, Field(description="What begins.")]


JOB_STAND_INS: dict[type[BaseModel], dict[str, Any]] = {
    ScheduleFile: {"cron": "0 0 * * *", "batch": {"input": "unknown", "output": "unknown-{date}"}},
}
"""As `mesh.topology.spec.STAND_INS`."""
