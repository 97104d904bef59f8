"""`GraphJobs` and `GraphSchedule`: what a graph says of its jobs, and of the batches that begin by themselves.

Immutable values, as `Graph` is. Neither takes part in the digest of a graph: where jobs are kept and when a batch
begins decides no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["GraphBatch", "GraphCallbacks", "GraphJobs", "GraphSchedule", "GraphTls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTls:
    """Files for TLS to the store, by absolute path; empty where there is none."""

    ca: str = ""
    """Certificates that the servers' are held against; the system's where empty."""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCallbacks:
    """Who may be told of a job's end, and how hard it is tried."""

    allow: tuple[str, ...] = ()
    """`host`, `host:port`, `*.domain` or `*.domain:port`, in lower case; nobody where empty."""
    key_file: str = ""
    """Absolute path of the key that callbacks are signed with; they are not where empty."""
    attempts: int = 8
    timeout_s: float = 5.0
    """How long one attempt may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphJobs:
    """How jobs are stored, tried and kept."""

    servers: tuple[str, ...] = ()
    """`nats://host:port` or `tls://host:port` of each server; empty where the mesh runs one of its own."""
    credentials: str = ""
    """Absolute path of the file that says who we are to those servers; empty where they do not ask."""
    tls: GraphTls | None = None
    """None for the system's certificates with `tls://`, and no TLS with `nats://`."""
    replicas: int = 1
    """Servers that keep each message: 1, 3 or 5."""
    folder: str
    """Absolute path of the data folder."""
    payloads: str = ""
    """`s3://bucket/prefix` for what is too large to be kept inline; in the data folder where empty."""
    workers: int = 1
    """Processes that work on jobs."""
    concurrency: int = 4
    """Jobs that each of them works on at once."""
    lease_s: float = 30.0
    """How long a worker may be silent before its jobs are given to another."""
    attempts: int = 8
    """Attempts at one job, the first included."""
    backoff_first_s: float = 1.0
    """The longest wait before the second attempt; it doubles with each."""
    backoff_most_s: float = 60.0
    """The longest that it gets."""
    ttl_s: float = 86_400.0
    """How long a job that is over is kept, its result with it."""
    dead_ttl_s: float = 14 * 86_400.0
    """How long the dead letter keeps a job."""
    dead_max_bytes: int = 1 << 30
    """The most that the dead letter takes; the oldest goes first."""
    max_queued: int = 100_000
    """Jobs that may wait or run; more are refused as Overloaded."""
    max_queued_bytes: int = 1 << 30
    """Bytes that those may take inline."""
    max_payload_bytes: int = 64 << 20
    """Tensor bytes that one job may be given, or give."""
    callbacks: GraphCallbacks = GraphCallbacks()
    batch_inputs: tuple[str, ...] = ()
    """Absolute paths of the folders that BatchService may read from."""
    batch_outputs: tuple[str, ...] = ()
    """Absolute paths of the folders that BatchService may write to."""

    @property
    def embedded(self) -> bool:
        """Whether the mesh runs a store of its own."""
        return not self.servers


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBatch:
    """The graph, run over files; as `BatchSpec` of `batch_service.proto`, and with its defaults."""

    input: str
    """Absolute path of a file or a folder; a template, as `output` is."""
    input_format: str = ""
    """`parquet`, `csv`, `jsonl`, `npy` or `files`; told by the name where empty."""
    columns: dict[str, str] = field(default_factory=dict[str, str])
    """Input of the graph -> column. One that is not here is fed by the column of its name."""
    output: str
    """Absolute path of the folder for the results: a template for `str.format`, given `date`, `time` and `schedule`."""
    keep: tuple[str, ...] = ()
    """Columns of the input that are written beside the outputs."""
    outputs: tuple[str, ...] = ()
    """Outputs of the graph that are written; all where empty."""
    shard_rows: int = 0
    """Rows a shard; 0 for the default."""
    request_rows: int = 0
    """Rows a request to the graph; 0 for the default."""
    stop_after: int | None = None
    """Fail once more rows than this have failed; None to go on whatever fails."""
    parameters: dict[str, str | int | float | bool] = field(default_factory=dict[str, "str | int | float | bool"])
    """What every request carries beside its tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSchedule:
    """A batch that begins by itself."""

    name: str
    cron: str
    """Five fields (minute, hour, day, month, weekday), and seconds as a sixth; in `timezone`."""
    timezone: str = "UTC"
    """A name of the IANA time zone database."""
    window_s: float | None = None
    """How long after it was due a batch may run; it is cancelled then, and can be resumed. None for no end."""
    overlap: str = "skip"
    """What a firing does while the batch of an earlier one is not over: `skip` itself, `wait` for it, `cancel` it."""
    catch_up: str = "latest"
    """Which of the firings that nobody was there for are made up for: `none`, the `latest`, `all`."""
    batch: GraphBatch
    line: int = 0
    """Where the file says so."""
