"""What everything in a store is called: streams, subjects, consumers."""

from __future__ import annotations

import re

from blake3 import blake3

from mesh.errors import InvalidInput
from mesh.jobs.records import RUNS, Lane

__all__ = ["Subjects"]

_TOKENS = {
    Lane.HIGH: "run.high",
    Lane.NORMAL: "run.normal",
    Lane.LOW: "run.low",
    Lane.SHARD: "task.shard",
    Lane.BATCH: "task.batch",
}
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_KEY = 200
_CLAIM_BYTES = 16


class Subjects:
    """The names of one graph's store.

    Args:
        graph: The topology's name: small letters, digits, `_` and `-`.
    """

    def __init__(self, graph: str) -> None:
        self.root = f"mesh.{graph}"
        self.work = f"{graph}-work"
        """The stream of what is to be done."""
        self.state = f"{graph}-state"
        """The stream of jobs from their first attempt on, of claims and of documents."""
        self.dead = f"{graph}-dead"
        """The stream of the dead letter."""
        self.events = f"{graph}-events"
        """The stream of what branches gave; in memory."""
        self.notices = f"{graph}-callbacks"
        """The stream of those who are to be told."""

    def work_of(self, lane: Lane, id: str = "*") -> str:  # noqa: A002
        """What is to be done for a job; for all of a lane."""
        return f"{self.root}.work.{_TOKENS[lane]}.{id}"

    def state_of(self, lane: Lane, id: str = "*") -> str:  # noqa: A002
        """A job's record."""
        return f"{self.root}.state.{_TOKENS[lane]}.{id}"

    def changed_of(self, lane: Lane, id: str) -> str:  # noqa: A002
        """Where the server tells of each record once it is stored."""
        return f"{self.root}.changed.{_TOKENS[lane]}.{id}"

    def of_lanes(self, kind: str, lanes: frozenset[Lane]) -> str:
        """A filter that lets the lanes through, and perhaps others: `kind` is `work` or `state`."""
        if len(lanes) == 1:
            return f"{self.root}.{kind}.{_TOKENS[next(iter(lanes))]}.*"
        return f"{self.root}.{kind}.run.*.*" if lanes <= frozenset(RUNS) else f"{self.root}.{kind}.*.*.*"

    def dead_of(self, id: str) -> str:  # noqa: A002
        """A job in the dead letter."""
        return f"{self.root}.dead.job.{id}"

    def dead_notice_of(self, id: str) -> str:  # noqa: A002
        """A callback in the dead letter."""
        return f"{self.root}.dead.notice.{id}"

    def notice_of(self, id: str) -> str:  # noqa: A002
        """Who is to be told of a job."""
        return f"{self.root}.notice.{id}"

    def events_of(self, id: str) -> str:  # noqa: A002
        """What the branches of a job gave."""
        return f"{self.root}.event.{id}"

    def cancel_of(self, id: str = "*") -> str:  # noqa: A002
        """Where workers hear that a job was cancelled; not stored."""
        return f"{self.root}.cancel.{id}"

    def claim_of(self, key: str, *, kind: str = "key") -> str:
        """The claim of an idempotency key. Keys of different kinds do not meet."""
        digest = blake3(f"{kind}\0{key}".encode(errors="surrogatepass")).hexdigest(_CLAIM_BYTES)
        return f"{self.root}.claim.{digest}"

    @property
    def claims(self) -> str:
        """All claims."""
        return f"{self.root}.claim.*"

    @property
    def secret(self) -> str:
        """What ids are checked by."""
        return f"{self.root}.meta.secret"

    def document_of(self, key: str) -> str:
        """A document.

        Raises:
            InvalidInput: The key is none.
        """
        if len(key) > _MAX_KEY or _KEY.fullmatch(key) is None:
            raise InvalidInput(f"a document's key has 1 to {_MAX_KEY} of a-z, A-Z, 0-9, _, - and dots between them")
        return f"{self.root}.document.{key}"

    @property
    def documents(self) -> str:
        """What documents' subjects begin with, their keys following."""
        return f"{self.root}.document."
