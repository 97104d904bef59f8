"""A connection to NATS by nats-py (https://github.com/nats-io/nats.py), held to bounds of ours.

What travels, who is let in and TLS are nats-py's. Ours is how long a call waits and for what:

- A request that was under way when the connection was lost is answered at once, by `Unanswered`: nats-py would let it
  wait out its time.
- Nothing is sent while there is no connection: nats-py would buffer it, and send it when nobody waits for it any more.
- A client that gave up (it does when it is refused once), or that hangs on a server which took bytes and answers
  nothing, is replaced by a new one, for ever.
- A cancellation that comes while something is written is not lost: nats-py swallows it there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mesh.errors import Overloaded, SetupError, Unavailable
from mesh.jobs.store.dialling import MAX_TEXT, dial, hang_up, new_client, shown, unsubscribe
from mesh.jobs.store.settings import StoreSettings

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription

__all__ = ["Connection", "Incoming", "Listening", "NoResponders", "Unanswered"]

log = logging.getLogger("mesh.jobs")

MAX_IN_FLIGHT = 256
"""Requests without an answer; others wait for their turn."""
MAX_WAITING = 8192
"""Requests that wait for their turn, or for a connection."""
_STUCK_S = 15.0
"""After which a client that cannot reconnect is replaced."""
_NO_RESPONDERS = "503"


class Unanswered(Exception):
    """Something was sent, perhaps, and nobody knows what became of it."""


class NoResponders(Unanswered):
    """Nobody listens: nothing was done. JetStream is not there, or not yet again; or there is no such stream."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that came."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str]

    @property
    def status(self) -> str:
        """The number that a server says instead of a message; empty for a message."""
        return self.headers.get("Status", "")


Heard = Callable[[Incoming], None]


@dataclass(eq=False, slots=True)
class Listening:
    """A subject that is listened to, also after the connection was lost and came back."""

    subject: str
    heard: Heard
    subscription: Subscription | None = None
    closed: bool = False
    _close: Callable[[Listening], None] = field(default=lambda _: None, repr=False)

    def close(self) -> None:
        """Stop listening."""
        if not self.closed:
            self.closed = True
            self._close(self)


class Connection:
    """One connection, whichever of the servers it is with.

    Args:
        settings: Where they are, and who we are to them.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self.address = shown(settings.servers)
        self.on_connected: list[Callable[[], None]] = []
        """Called whenever it was lost and is there again."""
        self.on_lost: list[Callable[[], None]] = []
        """Called whenever it is lost."""
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._closed = False
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._waiting = 0
        self._answers: dict[str, Heard] = {}
        self._lost: dict[str, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._inbox = ""
        self._listening: set[Listening] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stuck: asyncio.TimerHandle | None = None

    @property
    def version(self) -> tuple[int, int]:
        """Of the server: major and minor."""
        assert self._client is not None
        version = self._client.connected_server_version
        return version.major, version.minor

    @property
    def max_payload(self) -> int:
        """Most bytes of one message, its headers included."""
        assert self._client is not None
        return self._client.max_payload

    async def open(self) -> None:
        """Connect.

        Raises:
            Unavailable: No server answers in time.
            SetupError: It refuses us; a file is not readable; nats-py is not installed.
        """
        self._client = await self._opened(self._settings.timeout_s)
        self._connected.set()

    async def close(self) -> None:
        """Be done with it. What is under way is `Unanswered`."""
        self._closed = True
        self._connected.clear()
        if self._stuck is not None:
            self._stuck.cancel()
        self._tell_lost()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await hang_up(self._client)

    # What is sent.

    async def request(
        self, subject: str, data: bytes = b"", headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> Incoming:
        """Send something, and wait for its one answer.

        Raises:
            Unanswered: There is none in time, or the connection was lost meanwhile.
            NoResponders: Nobody listens.
            Unavailable: There is no connection.
            Overloaded: Too many wait already.
        """
        answer: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()

        def heard(message: Incoming) -> None:
            if not answer.done():
                answer.set_result(message)

        def lost() -> None:
            if not answer.done():
                answer.set_exception(Unanswered("the connection was lost"))

        await self._asked(subject, data, headers, heard, lost, answer, timeout_s)
        message = answer.result()
        if message.status == _NO_RESPONDERS and not message.data:
            raise NoResponders(f"nobody listens to {subject.partition('.')[0]}")
        return message

    async def gather(self, subject: str, data: bytes, *, timeout_s: float) -> list[Incoming]:
        """Send something, and wait for its answers, the last of which is a status (and is told as well).

        Raises:
            Unanswered, NoResponders, Unavailable, Overloaded: As `request`.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found: list[Incoming] = []

        def heard(message: Incoming) -> None:
            found.append(message)
            if message.status and not ended.done():
                ended.set_result(None)

        def lost() -> None:
            if not ended.done():
                ended.set_exception(Unanswered("the connection was lost"))

        await self._asked(subject, data, None, heard, lost, ended, timeout_s)
        ended.result()
        if found[-1].status == _NO_RESPONDERS:
            raise NoResponders(f"nobody listens to {subject.partition('.')[0]}")
        return found

    async def _asked(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None,
        heard: Heard,
        lost: Callable[[], None],
        ended: asyncio.Future[Any],
        timeout_s: float,
    ) -> None:
        """Send something, and wait until `ended` is."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} requests to the store wait already", retry_after_s=1.0)
        token = str(next(self._numbers))
        sent = False
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                client = await self._ready()
                self._answers[token], self._lost[token] = heard, lost
                sent = True
                await self._written(client, subject, data, headers, f"{self._inbox}.{token}")
                await ended
        except TimeoutError:
            if not sent:
                raise Unavailable(f"the store at {self.address} cannot be reached") from None
            raise Unanswered("no answer in time") from None
        finally:
            self._waiting -= 1
            self._answers.pop(token, None)
            self._lost.pop(token, None)
            if not ended.cancel() and not ended.cancelled():
                ended.exception()  # nobody looks where the time ran out just then

    async def publish(
        self, subject: str, data: bytes = b"", headers: Mapping[str, str] | None = None, *, reply: str = ""
    ) -> None:
        """Send something that nobody answers, or whose answers are `listen`ed to.

        Raises:
            Unavailable: There is no connection, and there was none for `timeout_s`.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._written(await self._ready(), subject, data, headers, reply)
        except (TimeoutError, Unanswered):
            raise Unavailable(f"the store at {self.address} cannot be reached") from None

    async def _ready(self) -> Client:
        while True:
            if self._closed:
                raise Unavailable("the store was closed")
            if self._connected.is_set():
                assert self._client is not None
                return self._client
            await self._connected.wait()

    async def _written(
        self, client: Client, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str
    ) -> None:
        from nats import errors

        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            await client.publish(subject, data, reply, None if headers is None else dict(headers))
        except errors.Error as error:
            raise Unanswered(f"it could not be sent: {error!s:.{MAX_TEXT}}") from None
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError

    async def listen(self, subject: str, heard: Heard) -> Listening:
        """Hear what is sent to a subject from now on. What is asked on this connection later is answered later than
        what it listens to.

        Raises:
            Unavailable: There is no connection, and there was none for `timeout_s`.
        """
        listening = Listening(subject, heard, _close=self._unlisten)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._subscribe(await self._ready(), listening)
        except TimeoutError:
            raise Unavailable(f"the store at {self.address} cannot be reached") from None
        self._listening.add(listening)
        return listening

    def new_inbox(self) -> str:
        """A subject that nobody else listens to."""
        return f"{self._inbox}-{next(self._numbers)}"

    async def _subscribe(self, client: Client, listening: Listening) -> None:
        from nats import errors

        async def heard(message: Any) -> None:
            if not listening.closed:
                incoming = Incoming(message.subject, message.reply, message.data, message.headers or {})
                listening.heard(incoming)

        try:
            listening.subscription = await client.subscribe(listening.subject, cb=heard)
        except errors.Error as error:
            raise Unavailable(f"the store at {self.address} does not listen: {error!s:.{MAX_TEXT}}") from None

    def _unlisten(self, listening: Listening) -> None:
        self._listening.discard(listening)
        if listening.subscription is not None:
            self._spawn(unsubscribe(listening.subscription))

    # The life of the client.

    async def _opened(self, timeout_s: float) -> Client:
        client = new_client()

        async def lost() -> None:
            if client is self._client:
                self._is_lost()

        async def back() -> None:
            if client is self._client:
                self._is_back()

        async def closed() -> None:
            if client is self._client and not self._closed:
                self._is_lost()
                self._reopen()

        await dial(client, self._settings, timeout_s, lost=lost, back=back, closed=closed)
        try:
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._answered)
        except BaseException:
            await hang_up(client)
            raise
        return client

    async def _answered(self, message: Any) -> None:
        heard = self._answers.get(message.subject.rpartition(".")[2])
        if heard is not None:
            heard(Incoming(message.subject, message.reply, message.data, message.headers or {}))

    def _is_lost(self) -> None:
        if self._connected.is_set():
            self._connected.clear()
            log.warning("store at %s: the connection is lost", self.address)
            self._stuck = asyncio.get_running_loop().call_later(_STUCK_S, self._reopen)
        self._tell_lost()

    def _tell_lost(self) -> None:
        for lost in list(self._lost.values()):
            lost()
        for told in self.on_lost:
            told()

    def _is_back(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        if not self._closed and not self._connected.is_set():
            self._connected.set()
            log.warning("store at %s: connected again", self.address)
            for told in self.on_connected:
                told()

    def _reopen(self) -> None:
        """Replace a client that gave up, or that cannot let go of a server that is gone."""
        if not self._closed and self._client is not None:
            gone, self._client = self._client, None
            self._spawn(self._replaced(gone))

    async def _replaced(self, gone: Client) -> None:
        self._spawn(hang_up(gone))
        while True:
            try:
                client = await self._opened(_STUCK_S)
                for listening in list(self._listening):
                    await self._subscribe(client, listening)
            except (Unavailable, SetupError) as error:
                log.warning("%s", error)
                await asyncio.sleep(1.0)
                continue
            self._client = client
            self._is_back()
            return

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
