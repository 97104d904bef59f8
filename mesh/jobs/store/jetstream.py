"""What of JetStream a store needs: writes that compare and set, reads, and its errors as ours.

Everything here may be repeated without harm, and is, until `timeout_s` is over: a write that was not answered is sent
again with the same expectation, and where the server then says that somebody was there, what is stored tells by its
token whether that was us. Error codes are those of nats-server's `server/errors.json`
(https://github.com/nats-io/nats-server).
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mesh.errors import InvalidInput, Overloaded, RequestError, Unavailable
from mesh.jobs.records import Conflict
from mesh.jobs.store.connection import Connection, Incoming, NoResponders, Unanswered

__all__ = ["ApiError", "JetStream", "Stored", "new_token"]

T = TypeVar("T")

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_TOKEN = "Mesh-Token"
_TTL = "Nats-TTL"
_BATCH = "Nats-Batch-Id"
_PLACE = "Nats-Batch-Sequence"
_COMMIT = "Nats-Batch-Commit"
_WRONG_LAST = (10071, 10164)
_NOT_STORED = 10077
_FULL = (10002, 10023, 10028, 10047, _NOT_STORED)
_TOO_LARGE = (10054, 10097)
_NO_MESSAGE = 10037
_NO_SUCH_SEQUENCE = (10043, 10057)
_RETRY_AFTER_S = 1.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_TRY_S = 2.5
"""After which what was not answered is sent again: a server of a cluster may have died with it."""
_REVISION = re.compile(r"wrong last sequence: (\d+)")


class ApiError(Exception):
    """The server refused what it was asked.

    Args:
        code: Its `err_code`.
        text: Its description.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream."""

    subject: str
    sequence: int
    data: bytes
    token: str
    """By which whoever wrote it knows it again."""


def new_token() -> str:
    """A token that nobody has."""
    return os.urandom(9).hex()


class JetStream:
    """Writes and reads of one account's streams.

    Args:
        connection: How the server is reached.
        timeout_s: How long one operation may take.
        leader: Whether only a stream's leader may tell what is stored: others may lag behind what was acknowledged.
    """

    def __init__(self, connection: Connection, timeout_s: float, *, leader: bool) -> None:
        self.connection = connection
        self._timeout_s = timeout_s
        self._leader = leader

    async def write(
        self,
        stream: str,
        subject: str,
        data: bytes,
        *,
        expected: int | None = None,
        token: str = "",
        ttl_s: float | None = None,
        repeated: bool = False,
    ) -> int:
        """Store a message; it is on disk when this returns.

        Args:
            stream: The one that takes its subject.
            subject: Where.
            data: The message.
            expected: The sequence of the message that it follows on its subject; 0 where there may be none; None for
                whatever is there.
            token: What it is known again by; made up where empty.
            ttl_s: How long it is kept; None for as long as its stream keeps it.
            repeated: Whether it was sent before, with the same token, and may be stored.

        Returns:
            Its sequence.

        Raises:
            Conflict: Another message is the last one of its subject.
            Overloaded: A bound of the stream or the server was reached.
            InvalidInput: It is larger than the server takes.
            Unavailable: No answer in time: nobody knows whether it is stored.
        """
        token = token or new_token()
        headers = {_TOKEN: token}
        if expected is not None:
            headers[_EXPECTED] = str(expected)
        if ttl_s is not None:
            headers[_TTL] = f"{max(1, math.ceil(ttl_s))}s"
        unanswered = repeated

        async def send(left_s: float) -> int:
            nonlocal unanswered
            try:
                answer = _answer(await self.connection.request(subject, data, headers, timeout_s=left_s))
                return int(answer["seq"])
            except NoResponders:
                raise
            except Unanswered:
                unanswered = True
                raise
            except ApiError as error:
                if error.code not in _WRONG_LAST:
                    raise
                found = _REVISION.search(error.text)
                raise Conflict(int(found[1]) if found else -1) from None

        try:
            return await self._repeated(send)
        except Conflict:
            stored = await self.last(stream, subject) if unanswered else None
            if stored is None or stored.token != token:
                raise
            return stored.sequence

    async def write_all(self, messages: Sequence[tuple[str, bytes, str]]) -> None:
        """Store messages on subjects that have none, as one batch: all of them or, where this raises, perhaps none.

        Args:
            messages: Of one stream: subject, message and token of each.

        Raises:
            Conflict, Overloaded, InvalidInput: As for `write`, and none is stored.
            Unavailable: No answer in time: nobody knows whether they are stored.
        """
        batch = new_token()

        def headers(place: int, token: str) -> dict[str, str]:
            return {_TOKEN: token, _EXPECTED: "0", _BATCH: batch, _PLACE: str(place)}

        for place, (subject, data, token) in enumerate(messages[:-1], start=1):
            await self.connection.publish(subject, data, headers(place, token))
        subject, data, token = messages[-1]
        last = headers(len(messages), token) | {_COMMIT: "1"}
        try:
            _answer(await self.connection.request(subject, data, last, timeout_s=min(self._timeout_s / 2, _TRY_S)))
        except Unanswered:
            raise Unavailable(f"the store at {self.connection.address} does not answer") from None
        except ApiError as error:
            if error.code in _WRONG_LAST:
                raise Conflict(-1) from None
            raise _told(error) from None

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject; None where there is none.

        Raises:
            Unavailable: No answer in time.
        """

        async def from_leader(left_s: float) -> Stored | None:
            body = json.dumps({"last_by_subj": subject}).encode()
            try:
                answer = _answer(
                    await self.connection.request(f"$JS.API.STREAM.MSG.GET.{stream}", body, timeout_s=left_s)
                )
            except ApiError as error:
                if error.code == _NO_MESSAGE:
                    return None
                raise
            message = answer["message"]
            headers = base64.b64decode(message.get("hdrs", "")).decode(errors="replace")
            found = re.search(rf"^{_TOKEN}: ?(\S*)", headers, re.MULTILINE)
            data = base64.b64decode(message.get("data", ""))
            return Stored(message["subject"], message["seq"], data, found[1] if found else "")

        async def direct(left_s: float) -> Stored | None:
            message = await self.connection.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout_s=left_s)
            return _stored(message)

        return await self._repeated(from_leader if self._leader else direct)

    async def page(
        self, stream: str, subjects: str, *, start: int, most: int, most_bytes: int
    ) -> tuple[list[Stored], int]:
        """Messages in their order.

        Args:
            stream: Whose.
            subjects: Only those of these subjects.
            start: The least sequence.
            most: Most messages.
            most_bytes: Bytes after which none follows.

        Returns:
            The messages, and how many there are behind them.

        Raises:
            Unavailable: No answer in time.
        """
        asked = {"seq": max(1, start), "next_by_subj": subjects, "batch": most, "max_bytes": most_bytes}
        body = json.dumps(asked).encode()

        async def ask(left_s: float) -> list[Incoming]:
            return await self.connection.gather(f"$JS.API.DIRECT.GET.{stream}", body, timeout_s=left_s)

        messages = await self._repeated(ask)
        found = [stored for stored in map(_stored, messages) if stored is not None]
        behind = messages[-1].headers.get("Nats-Num-Pending", "0")
        return found, int(behind) if found else 0

    async def remove(self, stream: str, sequence: int) -> bool:
        """Remove one message.

        Returns:
            Whether it was there.

        Raises:
            Unavailable: No answer in time.
        """
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except ApiError as error:
            if error.code in _NO_SUCH_SEQUENCE:
                return False
            raise _told(error) from None
        return True

    async def remove_all(self, stream: str, subject: str) -> None:
        """Remove the messages of a subject.

        Raises:
            Unavailable: No answer in time.
        """
        try:
            await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})
        except ApiError as error:
            raise _told(error) from None

    async def settle(self, reply: str) -> None:
        """Acknowledge a message that was delivered: it will not be again, and leaves a stream of work.

        Raises:
            Unavailable: No answer in time.
        """

        async def ask(left_s: float) -> None:
            await self.connection.request(reply, b"+ACK", timeout_s=left_s)

        await self._repeated(ask)

    async def give_back(self, reply: str, delay_s: float = 0.0) -> None:
        """Let a message that was delivered be delivered again, after `delay_s`. Where this is lost, it is after its
        lease.
        """
        body = b"-NAK"
        if delay_s > 0:
            body += b" " + json.dumps({"delay": max(1, int(delay_s * 1e9))}).encode()
        await self.connection.publish(reply, body)

    async def hold(self, reply: str) -> None:
        """Say that a message that was delivered is being worked on."""
        await self.connection.publish(reply, b"+WPI")

    async def ask(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's own API; what it refuses is an error of ours.

        Raises:
            Overloaded, Unavailable: It refuses, or does not answer in time.
        """
        try:
            return await self.api(name, body)
        except ApiError as error:
            raise _told(error) from None

    async def api(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's own API.

        Raises:
            ApiError: It refuses.
            Unavailable: No answer in time.
        """
        raw = b"" if body is None else json.dumps(body).encode()

        async def ask(left_s: float) -> dict[str, Any]:
            return _answer(await self.connection.request(f"$JS.API.{name}", raw, timeout_s=left_s))

        return await self._repeated(ask, told=False)

    async def _repeated(self, ask: Callable[[float], Awaitable[T]], *, told: bool = True) -> T:
        """Ask until there is an answer, or the time is over."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout_s
        pause_s = _PAUSE_S
        while True:
            try:
                return await ask(max(0.001, min(ends - loop.time(), self._timeout_s / 2, _TRY_S)))
            except Unanswered as error:
                if ends - loop.time() <= pause_s:
                    what = "has no JetStream" if isinstance(error, NoResponders) else "does not answer"
                    raise Unavailable(f"the store at {self.connection.address} {what}") from None
            except ApiError as error:
                if told:
                    raise _told(error) from None
                raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _answer(message: Incoming) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(message.data)
    except ValueError:
        raise Unanswered("the answer is none of JetStream") from None
    error = answer.get("error")
    if error is not None:
        raise ApiError(int(error.get("err_code", error.get("code", 0))), str(error.get("description", "")))
    return answer


def _stored(message: Incoming) -> Stored | None:
    """A message of a stream out of an answer; None for one that says that there is none."""
    headers = message.headers
    if message.status or "Nats-Sequence" not in headers:
        return None
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, headers.get(_TOKEN, ""))


def _told(error: ApiError) -> RequestError:
    """What the server refused, as an error of ours."""
    if error.code in _FULL:
        return Overloaded(f"the store is full: {error.text}", retry_after_s=_RETRY_AFTER_S)
    if error.code in _TOO_LARGE:
        return InvalidInput(f"it is larger than the store takes: {error.text}")
    return Unavailable(f"the store refuses: {error}")
