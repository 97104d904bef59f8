"""Messages of durable consumers, pulled: those of the first consumer before those of the second, and so on.

Where there is none, one request is left standing with each consumer, so that the next message comes without being asked
for. One that comes while nobody takes is handed back at once, for others. nats-py's own `fetch` leaves requests behind
that take messages for nobody, which then wait out their lease.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mesh.errors import RequestError, Unavailable
from mesh.jobs.store.connection import Incoming, Listening
from mesh.jobs.store.jetstream import JetStream

__all__ = ["Puller"]

log = logging.getLogger("mesh.jobs")

K = TypeVar("K", bound=Hashable)

_STANDING_S = 5.0
"""After which a standing request is made anew: one that its server forgot stands no longer than that."""
_LATE_S = 1.0
_REST_S = 0.25
"""Before a request that was refused is made again."""


@dataclass(eq=False, slots=True)
class _Pull(Generic[K]):
    key: K
    room: int
    messages: deque[Incoming] = field(default_factory=deque[Incoming])
    came: int = 0
    ended: bool = False
    refused: bool = False
    listening: Listening | None = None
    timer: asyncio.TimerHandle | None = None


class Puller(Generic[K]):
    """The messages of some consumers of one stream, for one caller at a time.

    Args:
        jetstream: How the server is reached.
        stream: The stream.
        consumers: Its durable consumers, by what they are called here.
        timeout_s: How long the server may take to say that there is nothing.
    """

    def __init__(self, jetstream: JetStream, stream: str, consumers: Mapping[K, str], timeout_s: float) -> None:
        self._jetstream = jetstream
        self._stream = stream
        self._consumers = consumers
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._taking = False
        self._standing: dict[K, _Pull[K]] = {}
        self._open: set[_Pull[K]] = set()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        jetstream.connection.on_lost.append(self._lost)

    async def take(self, keys: Sequence[K], room: int, wait_s: float) -> list[tuple[K, Incoming]]:
        """None to `room` messages, after at most `wait_s` where there is none.

        Raises:
            Unavailable: The server does not answer.
        """
        found: list[tuple[K, Incoming]] = []
        async with self._turn:
            self._taking = True
            try:
                await self._found(keys, room, found)
                if not found and wait_s > 0:
                    await self._waited(keys, room, wait_s, found)
                return found
            except BaseException:
                for _, message in found:
                    self._refuse(message)
                raise
            finally:
                self._taking = False
                for pull in self._standing.values():
                    while pull.messages:
                        self._refuse(pull.messages.popleft())

    async def close(self) -> None:
        """Be done with it: what comes still is handed back, or left to its lease."""
        for pull in list(self._open):
            self._end(pull)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LATE_S)

    async def _found(self, keys: Sequence[K], room: int, found: list[tuple[K, Incoming]]) -> None:
        """What is there now. A consumer without an answer, as while a cluster chooses its leader, holds up no other."""
        refused = 0
        for key in keys:
            self._arrived((key,), room, found)
            if len(found) < room:
                pull = await self._ask(key, room - len(found), {"no_wait": True}, self._timeout_s)
                try:
                    while not pull.ended:
                        self._news.clear()
                        await self._news.wait()
                finally:
                    self._end(pull)
                    found += [(key, message) for message in pull.messages]
                refused += pull.refused and not pull.came
        if refused == len(keys):
            raise Unavailable(f"the store at {self._jetstream.connection.address} does not give any work")

    async def _waited(self, keys: Sequence[K], room: int, wait_s: float, found: list[tuple[K, Incoming]]) -> None:
        """What comes within a time."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait_s
        while not found and (left_s := ends - loop.time()) > 0:
            self._news.clear()
            rest_s = left_s
            for key in keys:
                standing = self._standing.get(key)
                if standing is not None and standing.ended and standing.refused:
                    rest_s = min(rest_s, _REST_S)
                    standing.refused = False
                elif standing is None or standing.ended:
                    expires = {"expires": int(_STANDING_S * 1e9)}
                    self._standing[key] = await self._ask(key, 1, expires, _STANDING_S + _LATE_S)
            try:
                async with asyncio.timeout(rest_s):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._arrived(keys, room, found)

    def _arrived(self, keys: Sequence[K], room: int, found: list[tuple[K, Incoming]]) -> None:
        for key in keys:
            pull = self._standing.get(key)
            while pull is not None and pull.messages and len(found) < room:
                found.append((key, pull.messages.popleft()))

    async def _ask(self, key: K, room: int, how: Mapping[str, Any], lasts_s: float) -> _Pull[K]:
        connection = self._jetstream.connection
        pull = _Pull(key, room)
        self._open.add(pull)
        inbox = connection.new_inbox()
        body = json.dumps({"batch": room, **how}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumers[key]}"
        try:
            pull.listening = await connection.listen(inbox, lambda message: self._heard(pull, message))
            pull.timer = asyncio.get_running_loop().call_later(lasts_s, self._end, pull, True)
            await connection.publish(subject, body, reply=inbox)
        except BaseException:
            self._end(pull)
            raise
        return pull

    def _heard(self, pull: _Pull[K], message: Incoming) -> None:
        if message.status:
            # 404 and 408 say that there is nothing (more); all others that the request did not come to its end.
            self._end(pull, message.status not in ("404", "408"))
            return
        pull.came += 1
        if self._taking:
            pull.messages.append(message)
        else:
            self._refuse(message)
        if pull.came >= pull.room:
            self._end(pull)
        self._news.set()

    def _end(self, pull: _Pull[K], refused: bool = False) -> None:
        self._open.discard(pull)
        if not pull.ended:
            pull.ended, pull.refused = True, refused
            if pull.listening is not None:
                pull.listening.close()
            if pull.timer is not None:
                pull.timer.cancel()
        self._news.set()

    def _lost(self) -> None:
        """The connection is gone, and with it what was asked for."""
        for pull in list(self._open):
            self._end(pull, True)

    def _refuse(self, message: Incoming) -> None:
        self._spawn(self._handed_back(message))

    async def _handed_back(self, message: Incoming) -> None:
        try:
            await self._jetstream.give_back(message.reply)
        except RequestError as error:
            log.debug("a message is left to its lease: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
