"""Jobs, followed: each record as the server republishes it once it is stored, and what branches gave.

A record that was not heard (the connection was lost, or the one who follows is slow) is read again, now and then at any
rate. Records in between are then gone; what they told of attempts stands in the one that is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from mesh.errors import InvalidInput, Overloaded, Unavailable
from mesh.jobs.records import Job, JobState, Lane, Progress
from mesh.jobs.store.codec import decode_progress
from mesh.jobs.store.connection import Incoming, Listening
from mesh.jobs.store.jetstream import Stored
from mesh.jobs.store.stored import Record, Records

__all__ = ["Following"]

_LOOK_S = 10.0
"""After which a job is looked at again of which nothing was heard."""
_HELD_MESSAGES = 64
"""Of one who follows and is slow; more are dropped, and what there is then is read."""
_HELD_BYTES = 4 << 20
_PAST_MESSAGES = 256
"""Of what branches gave before somebody followed: the first ones, where there are more."""
_PAST_BYTES = 16 << 20


class Following:
    """Those who follow.

    Args:
        records: What is shared.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._followers = 0

    async def follow(self, id: str) -> AsyncGenerator[Job | Progress]:  # noqa: A002
        """See `JobStore.follow`."""
        lane = self._records.lane_of(id)
        if self._followers >= self._records.settings.max_followers:
            raise Overloaded(f"{self._followers} jobs are followed already", retry_after_s=1.0)
        self._followers += 1
        follower = _Follower(self._records, lane, id)
        try:
            await follower.listen()
            async for told in follower.told():
                yield told
        finally:
            self._followers -= 1
            follower.close()


class _Follower:
    def __init__(self, records: Records, lane: Lane, id: str) -> None:  # noqa: A002
        self._records = records
        self._lane = lane
        self._id = id
        self._listening: list[Listening] = []
        self._held: deque[Incoming] = deque()
        self._held_bytes = 0
        self._missed = False
        self._news = asyncio.Event()
        # What was told last.
        self._job: Job | None = None
        self._sequence = 0
        self._attempt = ""
        """The token of the attempt that runs."""
        self._index = 0
        """Of what its branches gave."""
        self._heard_of = 0

    async def listen(self) -> None:
        connection, subjects = self._records.jetstream.connection, self._records.subjects
        connection.on_connected.append(self._look_again)
        for subject in (subjects.changed_of(self._lane, self._id), subjects.events_of(self._id)):
            self._listening.append(await connection.listen(subject, self._heard))

    def close(self) -> None:
        for listening in self._listening:
            listening.close()
        on_connected = self._records.jetstream.connection.on_connected
        if self._look_again in on_connected:
            on_connected.remove(self._look_again)

    def _look_again(self) -> None:
        self._missed = True
        self._news.set()

    def _heard(self, message: Incoming) -> None:
        if self._held and (len(self._held) >= _HELD_MESSAGES or self._held_bytes + len(message.data) > _HELD_BYTES):
            self._held.clear()
            self._held_bytes = 0
            self._missed = True
        self._held.append(message)
        self._held_bytes += len(message.data)
        self._news.set()

    async def told(self) -> AsyncGenerator[Job | Progress]:
        """The job and what its branches give, to its end."""
        # Those who are told of it live as long as the job: only what is asked once more is bounded by a time.
        self._missed = True
        while True:
            if self._missed:
                self._missed = False
                async for one in self._looked():
                    yield one
            while self._held and not self._missed:
                message = self._held.popleft()
                self._held_bytes -= len(message.data)
                async for one in self._about(message):
                    yield one
            if self._job is not None and self._job.over:
                return
            if not self._held and not self._missed:
                self._news.clear()
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await self._news.wait()
                except TimeoutError:
                    self._missed = True

    async def _looked(self) -> AsyncGenerator[Job | Progress]:
        """What is stored."""
        job, record = await self._records.look(self._id)
        if record is None:
            if job != self._job:
                self._job = job
                yield job
            return
        if record.sequence >= self._sequence:
            async for one in self._changed(record):
                yield one
            if not record.job.over:
                async for one in self._past():
                    yield one

    async def _about(self, message: Incoming) -> AsyncGenerator[Job | Progress]:
        """What a message tells."""
        sequence = message.headers.get("Nats-Sequence", "")
        token = message.headers.get("Mesh-Token", "")
        if not sequence.isdigit():  # of a branch: those are heard as they were sent
            if token == self._attempt:
                one = self._progress(message.data)
                if one is not None:
                    yield one
            return
        if int(sequence) <= self._sequence:
            return
        subject = self._records.subjects.state_of(self._lane, self._id)
        stored = Stored(subject, int(sequence), message.data, token)
        async for one in self._changed(self._records.read_record(self._id, self._lane, stored)):
            yield one

    async def _changed(self, record: Record) -> AsyncGenerator[Job | Progress]:
        """A record, with what its end says that there is."""
        self._sequence = record.sequence
        attempt = record.token.partition(".")[0]
        job = record.job
        if job.state is JobState.RUNNING and attempt != self._attempt:
            self._attempt, self._index, self._heard_of = attempt, 0, 0
        if job.over:
            # What its branches gave was sent before, and may be heard after. Who comes late is told the result alone.
            if self._job is not None:
                async for one in self._left(record.stored.told):
                    yield one
            job = await self._records.with_outputs(record)
            self._job = job
            yield job
            return
        # A worker says now and then that it goes on: that is nothing to tell.
        if job != self._job:
            self._job = job
            yield job

    async def _left(self, told: int) -> AsyncGenerator[Progress]:
        """What was not told yet of an attempt whose branches gave something so often."""
        for message in tuple(self._held):
            if message.headers.get("Mesh-Token") == self._attempt and "Nats-Sequence" not in message.headers:
                one = self._progress(message.data)
                if one is not None:
                    yield one
        if told > self._heard_of:
            async for one in self._past():
                yield one

    async def _past(self) -> AsyncGenerator[Progress]:
        """What branches of the attempt gave, and was not told yet."""
        if not self._attempt:
            return
        subjects = self._records.subjects
        try:
            found, _ = await self._records.jetstream.page(
                subjects.events, subjects.events_of(self._id), start=1, most=_PAST_MESSAGES, most_bytes=_PAST_BYTES
            )
        except Unavailable:
            return  # it is in memory, and gone with its server: what is missing stands in the result
        for stored in found:
            if stored.token == self._attempt:
                one = self._progress(stored.data)
                if one is not None:
                    yield one

    def _progress(self, raw: bytes) -> Progress | None:
        try:
            progress, index = decode_progress(raw)
        except InvalidInput:
            return None
        if index <= self._index:
            return None
        self._index = index
        self._heard_of += 1
        return progress
