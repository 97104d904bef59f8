"""Callbacks that are due."""

from __future__ import annotations

import logging

from mesh.errors import InvalidInput, RequestError
from mesh.jobs.messages import decode_callback
from mesh.jobs.records import Callback, Job
from mesh.jobs.store.codec import job_of, parsed
from mesh.jobs.store.connection import Incoming
from mesh.jobs.store.stored import Records
from mesh.jobs.work.pulling import Puller
from mesh.transports.status import encode_error
from mesh.v1.job_record_pb2 import StoredDead, StoredNotice

__all__ = ["Notice", "Notices"]

log = logging.getLogger("mesh.jobs")

_CONSUMER = "notices"


class Notices:
    """Those who tell.

    Args:
        records: What is shared.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        timeout_s = min(2.5, records.settings.timeout_s / 2)
        self._puller = Puller(records.jetstream, records.subjects.notices, {_CONSUMER: _CONSUMER}, timeout_s)

    async def take(self, room: int, wait_s: float) -> list[Notice]:
        """See `JobStore.take_notices`."""
        if room < 1:
            return []
        taken = await self._puller.take((_CONSUMER,), room, wait_s)
        found: list[Notice] = []
        for _, message in taken:
            try:
                stored = parsed(StoredNotice(), message.data)
                job = job_of(stored.id, self._records.lane_of(stored.id), stored.job)
            except RequestError as error:
                log.error("a callback cannot be read, and is dropped: %s", error)
                self._records.spawn(self._records.jetstream.settle(message.reply), "dropping a callback")
                continue
            found.append(Notice(self._records, message, stored, job))
        return found

    async def close(self) -> None:
        """Be done with it."""
        await self._puller.close()


class Notice:
    """A callback that is due. Made by `Notices`."""

    def __init__(self, records: Records, message: Incoming, stored: StoredNotice, job: Job) -> None:
        self.job = job
        """The job as it ended, without outputs."""
        self.callback: Callback = decode_callback(stored.callback)
        self.number = _delivered(message.reply)
        """Which try this is, from 1, as far as the server remembers."""
        self.first_time = job.end_time or records.wall()
        """When the job was over."""
        self._records = records
        self._stored = stored
        self._reply = message.reply

    async def told(self) -> None:
        """It was heard: nothing more is to be done."""
        await self._records.jetstream.settle(self._reply)

    async def again(self, delay_s: float) -> None:
        """Try again after `delay_s`."""
        await self._records.jetstream.give_back(self._reply, delay_s)

    async def give_up(self, error: RequestError) -> None:
        """Put it into the dead letter and be done with it."""
        records, subjects = self._records, self._records.subjects
        dead = StoredDead(id=self.job.id, job=self._stored.job)
        dead.work.callback.CopyFrom(self._stored.callback)
        dead.job.error.CopyFrom(encode_error(error))
        await records.jetstream.write(subjects.dead, subjects.dead_notice_of(self.job.id), dead.SerializeToString())
        await records.jetstream.settle(self._reply)


def _delivered(reply: str) -> int:
    tokens = reply.split(".")
    # With a domain and an account's hash before the stream, where the server has them.
    place = 4 if len(tokens) == 9 else 6
    try:
        return int(tokens[place])
    except (IndexError, ValueError):
        raise InvalidInput("the server tells of a delivery in an unknown way") from None
