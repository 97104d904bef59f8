"""Group commit: messages that many write at once are synced to disk together.

A server that syncs each message before it acknowledges it is as quick as its disk: some 300 to 3,000 a second. An
atomic batch (nats-server 2.12 and later; ADR-50 of https://github.com/nats-io/nats-architecture-and-design) is written
as a whole and synced once. Making one costs some syncs more, so few messages go one by one, as they come; what comes
while a batch is under way is the next batch. A batch that is refused, because one of its messages is, or that is not
answered, is written message by message: each is then accepted or refused for itself, and what was stored already is
found to be ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.jobs.records import Conflict
from mesh.jobs.store.jetstream import JetStream, new_token

__all__ = ["ATOMIC_VERSION", "GroupCommit"]

ATOMIC_VERSION = (2, 12)
"""The first nats-server with atomic batches."""
_FEW = 4
"""Messages that go one by one, at once."""
_MOST = 512
"""Messages of a batch; a server takes 1,000."""
_MOST_BYTES = 8 << 20
_WAITING = 8192
_WAITING_BYTES = 64 << 20


@dataclass(eq=False, slots=True)
class _Entry:
    subject: str
    data: bytes
    token: str
    stored: asyncio.Future[None]
    taken: bool = False


class GroupCommit:
    """Writes to one stream of messages whose subjects are to be new.

    Args:
        jetstream: How the server is reached.
        stream: The stream. It has to allow atomic batches.
        timeout_s: How long a write may take.
        enabled: Whether the server has them.
    """

    def __init__(self, jetstream: JetStream, stream: str, timeout_s: float, *, enabled: bool) -> None:
        self._jetstream = jetstream
        self._stream = stream
        self._timeout_s = timeout_s
        self._enabled = enabled
        self._singles = 0
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None

    async def write(self, subject: str, data: bytes) -> None:
        """Store a message on a subject that has none; it is on disk when this returns.

        Raises:
            Conflict: There is another.
            Overloaded: A bound of the stream, the server or of what waits here was reached.
            InvalidInput: It is larger than the server takes.
            Unavailable: No answer in time: nobody knows whether it is stored.
        """
        if not self._enabled or (self._task is None and self._singles < _FEW):
            self._singles += 1
            try:
                await self._jetstream.write(self._stream, subject, data, expected=0)
            finally:
                self._singles -= 1
            return
        if len(self._waiting) >= _WAITING or self._waiting_bytes + len(data) > _WAITING_BYTES:
            raise Overloaded(f"{len(self._waiting)} messages wait for the store", retry_after_s=1.0)
        entry = _Entry(subject, data, new_token(), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._waiting_bytes += len(data)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await entry.stored
        except TimeoutError:
            if entry.taken:
                raise Unavailable("the store does not answer") from None
            self._drop(entry)
            raise Overloaded("the store is behind with what is written", retry_after_s=1.0) from None
        except asyncio.CancelledError:
            self._drop(entry)
            raise

    async def close(self) -> None:
        """Be done with it; nobody knows what becomes of what waits still."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for entry in self._waiting:
            _fail(entry, Unavailable("the store was closed"))

    def _drop(self, entry: _Entry) -> None:
        if not entry.taken and entry in self._waiting:
            self._waiting.remove(entry)
            self._waiting_bytes -= len(entry.data)

    async def _run(self) -> None:
        taken: list[_Entry] = []
        try:
            while self._waiting:
                taken = self._taken()
                if len(taken) <= _FEW or not await self._committed(taken):
                    await asyncio.gather(*map(self._alone, taken))
        finally:
            self._task = None
            for entry in taken:
                _fail(entry, Unavailable("the store was closed"))

    def _taken(self) -> list[_Entry]:
        taken: list[_Entry] = []
        size = 0
        while self._waiting and len(taken) < _MOST and (not taken or size + len(self._waiting[0].data) <= _MOST_BYTES):
            entry = self._waiting.popleft()
            entry.taken = True
            size += len(entry.data)
            taken.append(entry)
        self._waiting_bytes -= size
        return taken

    async def _committed(self, entries: list[_Entry]) -> bool:
        """Whether all are stored, as one batch."""
        try:
            await self._jetstream.write_all([(entry.subject, entry.data, entry.token) for entry in entries])
        except (RequestError, Conflict):
            return False
        for entry in entries:
            if not entry.stored.done():
                entry.stored.set_result(None)
        return True

    async def _alone(self, entry: _Entry) -> None:
        try:
            await self._jetstream.write(
                self._stream, entry.subject, entry.data, expected=0, token=entry.token, repeated=True
            )
        except (RequestError, Conflict) as error:
            _fail(entry, error)
        else:
            if not entry.stored.done():
                entry.stored.set_result(None)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.stored.done():
        entry.stored.set_exception(error)
        entry.stored.exception()  # nobody may look
