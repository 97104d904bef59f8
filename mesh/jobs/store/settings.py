"""What a store is told: where it is, who we are to it, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.errors import SetupError

__all__ = ["StoreSettings", "StoreTls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTls:
    """Absolute paths of PEM files; empty where there is none."""

    ca: str = ""
    """Whom to trust; the system's certificates where empty."""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """A store and its bounds. All processes of a mesh have to be given the same bounds.

    Raises:
        SetupError: A bound is none.
    """

    graph: str
    """The topology's name: what everything in the store is called by."""
    servers: tuple[str, ...]
    """`nats://host:port` or `tls://host:port` of each server."""
    user: str = ""
    password: str = field(default="", repr=False)
    credentials: str = ""
    """Path of a NATS credentials file; empty for `user` and `password`, or nothing."""
    tls: StoreTls | None = None
    replicas: int = 1
    """Servers that keep each message: 1, 3 or 5."""
    folder: str = ""
    """Absolute path of the data folder, where payloads above `INLINE_BYTES` are kept."""
    payloads: str = ""
    """`s3://bucket/prefix` for those payloads; in the data folder where empty."""
    lease_s: float = 30.0
    """How long a worker may be silent before its job is given to another."""
    attempts: int = 8
    """Attempts at one job, the first included."""
    result_ttl_s: float = 86_400.0
    """How long a job that is over is kept, its result with it."""
    dead_ttl_s: float = 14 * 86_400.0
    """How long the dead letter keeps a job that failed."""
    dead_max_bytes: int = 1 << 30
    """Most bytes of the dead letter; the oldest goes first."""
    max_queued: int = 100_000
    """Jobs that may wait or run; more are refused as Overloaded."""
    max_queued_bytes: int = 1 << 30
    """Bytes that those may take: inline, and once more as payloads beside the stream."""
    max_payload_bytes: int = 64 << 20
    """Tensor bytes that one job may be given, or give."""
    max_followers: int = 1024
    """Jobs that may be followed at once through this store object."""
    timeout_s: float = 5.0
    """How long one operation may take, reconnecting and repeating included."""

    def __post_init__(self) -> None:
        for name in ("lease_s", "result_ttl_s", "dead_ttl_s", "timeout_s"):
            if not 0 < getattr(self, name) <= 3650 * 86_400.0:
                raise SetupError(f"a store's {name} has to be above zero, and at most ten years")
        for name in ("attempts", "max_queued", "max_queued_bytes", "max_payload_bytes", "dead_max_bytes"):
            if getattr(self, name) < 1:
                raise SetupError(f"a store's {name} has to be at least 1, and not {getattr(self, name)}")
        if self.replicas not in (1, 3, 5):
            raise SetupError(f"a store keeps 1, 3 or 5 replicas, and not {self.replicas}")
        if not self.servers:
            raise SetupError("a store needs the address of a server")
