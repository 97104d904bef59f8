"""What the store keeps of batches beside their jobs: how far each is, and which key was given for what.

    batch.of.<id>     a BatchRecord: what was asked, and how far it is
    batch.key.<hash>  an idempotency key under which a batch was looked at, and when: asked again, it is not looked at
                      again, since its output folder may have something in it by now

Whoever ends a batch looks through the documents, and takes away those whose batch the store does not know any more, and
keys that are older than any that the store knows.
"""

from __future__ import annotations

from blake3 import blake3

from mesh.errors import NotFound
from mesh.jobs.records import Conflict, JobState
from mesh.jobs.store.job_store import JobStore
from mesh.v1.batch_record_pb2 import BatchRecord

__all__ = ["BatchDocument", "forget_old", "key_document", "read_record"]

_RECORDS = "batch.of"
_KEYS = "batch.key"
_KEY_S = 40 * 86_400.0
"""How long a key is kept beyond the time that a batch is known once it is over: no batch takes longer than a month."""
_MOST_FORGOTTEN = 100
"""Documents that are looked at when one batch ends."""


def key_document(key: str) -> str:
    """Where a key is kept."""
    return f"{_KEYS}.{blake3(key.encode()).hexdigest(length=16)}"


async def read_record(store: JobStore, batch: str) -> BatchRecord | None:
    """How far a batch is. Raises Unavailable."""
    found = await store.read(f"{_RECORDS}.{batch}")
    return None if found is None else BatchRecord.FromString(found[0])


class BatchDocument:
    """The record of a batch, for whoever looks after it: written by one, and taken over by another.

    Args:
        store: Where.
        batch: Which.
    """

    def __init__(self, store: JobStore, batch: str) -> None:
        self._store = store
        self._key = f"{_RECORDS}.{batch}"
        self._revision = 0
        self._written = b""
        self.record = BatchRecord()
        """As it is to be written."""

    async def open(self, first: BatchRecord) -> None:
        """Read it; write the first one, where there is none."""
        for _ in range(3):
            found = await self._store.read(self._key)
            if found is not None:
                self._written, self._revision = found
                self.record = BatchRecord.FromString(self._written)
                return
            try:
                data = first.SerializeToString()
                self._revision = await self._store.keep(self._key, data, 0)
            except Conflict:
                continue
            self._written, self.record = data, first
            return

    async def write(self) -> None:
        """Write it, if it has changed.

        What another wrote meanwhile is written over: it is of the same batch, and whose word counts, its job decides.
        """
        data = self.record.SerializeToString(deterministic=True)
        if data != self._written:
            self._revision = await self._store.keep(self._key, data)
            self._written = data


async def forget_old(store: JobStore, now: float) -> int:
    """Take away what is of no use any more. Gives how many documents that were.

    Raises:
        Unavailable: The store does not answer.
    """
    count = 0
    for key in (await store.keys(_RECORDS))[:_MOST_FORGOTTEN]:
        try:
            known = (await store.get(key.rpartition(".")[2], outputs=False)).state is not JobState.EXPIRED
        except NotFound:
            known = False
        if not known:
            await store.forget(key)
            count += 1
    for key in (await store.keys(_KEYS))[:_MOST_FORGOTTEN]:
        found = await store.read(key)
        if found is not None and now - float(found[0]) > _KEY_S + store.settings.result_ttl_s:
            await store.forget(key)
            count += 1
    return count
