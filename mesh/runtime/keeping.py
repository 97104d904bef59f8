"""Cache nodes: one as a handler of calls, and one as the backend of caches that are kept in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from mesh.caches import BackendSettings, CacheStats, Entry, Found
from mesh.caches.backend import lasting_s, prefix_of
from mesh.caches.rest import Rest
from mesh.context import Clock, Context
from mesh.errors import InvalidInput, NodeFailed, RequestError, Unavailable
from mesh.handler import Handler
from mesh.keeping import MAX_KEYS, CacheAnswer, CacheCall, CacheEntry, CacheUse
from mesh.node import Cache

__all__ = ["NodeBackend", "Reach", "keeping"]

Reach = Callable[[], Awaitable[Handler[Any]]]
"""Gives the handler of a cache node, wherever it runs."""
_ROOM = 4
"""One part in so many of what a call carries is left to keys and what else there is in a message."""


def keeping(node: Cache, name: str, max_message_bytes: int) -> Handler[Any]:
    """A cache node as a handler of `CacheCall`, answering `CacheAnswer`.

    Values beyond what one call carries are left out of its answer, as if they had been missed.
    """

    async def answer(request: CacheCall) -> CacheAnswer:
        request.check()
        namespace = request.namespace
        match request.verb:
            case "get" if namespace is not None:
                found = await node.get(namespace, request.keys)
                if len(found) != len(request.keys):
                    raise NodeFailed(f"answered {len(found)} keys where {len(request.keys)} were asked for")
                return CacheAnswer(entries=tuple(_carried(found, max_message_bytes)))
            case "put" if namespace is not None:
                return CacheAnswer(count=await node.put(namespace, request.entries))
            case "delete" if namespace is not None:
                return CacheAnswer(count=await node.delete(namespace, request.keys))
            case "clear":
                return CacheAnswer(count=await node.clear(namespace))
            case "stats":
                return CacheAnswer(use=await node.stats(namespace))
            case "prefetch":
                raise InvalidInput("a cache node runs nothing: ask the gateway of the mesh")
            case _:
                raise InvalidInput(f"{request.verb} needs the namespace that the keys are in")

    async def call(request: CacheCall, context: Context, /) -> CacheAnswer:
        try:
            return await answer(request)
        except BaseException as error:
            context.explain(error, node=name)
            raise

    made: Any = call  # whoever asks a cache knows what it answers
    return made


def _carried(found: Sequence[CacheEntry | None], most: int) -> Iterator[CacheEntry | None]:
    for entry in found:
        most -= 0 if entry is None else len(entry.value)
        yield entry if most >= 0 else None


class NodeBackend:
    """`mesh://node`: a cache node as a `CacheBackend`. One that is down, slow or answers rubbish has missed.

    Args:
        node: Its name.
        reach: Gives its handler; asked for each call, and may raise what a call may.
        settings: Its bounds and the time that a request waits for it.
        max_message_bytes: What one call carries.
        clock: What that time is measured by.
    """

    def __init__(
        self, node: str, reach: Reach, settings: BackendSettings, max_message_bytes: int, clock: Clock
    ) -> None:
        self.url = f"mesh://{node}"
        self._reach = reach
        self._settings = settings
        self._most_bytes = max(1, max_message_bytes - max_message_bytes // _ROOM)
        self._clock = clock
        self._rest = Rest(clock)
        self._hits = self._misses = self._kept = self._refused = self._failures = self._skipped = 0
        self._closed = False

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        """See `CacheBackend`."""
        prefix_of(namespace)
        entries: list[CacheEntry | None] = []
        for start in range(0, len(keys), MAX_KEYS):
            part = tuple(keys[start : start + MAX_KEYS])
            answer = await self._try(CacheCall(verb="get", namespace=namespace, keys=part))
            entries += answer.entries if answer is not None and len(answer.entries) == len(part) else [None] * len(part)
        values = [None if entry is None else entry.value for entry in entries]
        missed = values.count(None)
        self._misses += missed
        self._hits += len(values) - missed
        return Found(values, [None if entry is None else entry.ttl_s for entry in entries] if with_ttl else [])

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> None:
        """See `CacheBackend`. Nothing is: the node may be anywhere."""

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        """See `CacheBackend`."""
        prefix_of(namespace)
        kept = 0
        for part in self._parts(entries):
            answer = await self._try(CacheCall(verb="put", namespace=namespace, entries=part))
            kept += 0 if answer is None else answer.count
        self._kept += kept
        return kept

    def _parts(self, entries: Sequence[Entry]) -> Iterator[tuple[CacheEntry, ...]]:
        """Entries as calls carry them; of one that is too large only that what was there is to be forgotten."""
        part: list[CacheEntry] = []
        nbytes = 0
        most = min(self._settings.max_value_bytes, self._most_bytes)
        for key, value, ttl_s in entries:
            if len(value) > most:
                self._refused += 1
                value, ttl_s = b"", 0.0
            if part and (nbytes + len(value) > self._most_bytes or len(part) == MAX_KEYS):
                yield tuple(part)
                part, nbytes = [], 0
            part.append(CacheEntry(key, value, lasting_s(ttl_s, self._settings.max_ttl_s)))
            nbytes += len(value)
        if part:
            yield tuple(part)

    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        """See `CacheBackend`."""
        prefix_of(namespace)
        deleted = 0
        for start in range(0, len(keys), MAX_KEYS):
            part = tuple(keys[start : start + MAX_KEYS])
            deleted += (await self._surely(CacheCall(verb="delete", namespace=namespace, keys=part))).count
        return deleted

    async def forget(self, namespace: str | None = None) -> int:
        """See `CacheBackend`."""
        if namespace is not None:
            prefix_of(namespace)
        return (await self._surely(CacheCall(verb="clear", namespace=namespace))).count

    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        """See `CacheBackend`. What it holds and dropped is told by the node, for all who keep things in it."""
        answer = await self._try(CacheCall(verb="stats", namespace=namespace))
        use = CacheUse() if answer is None else answer.use
        return CacheStats(
            backend=self.url,
            hits=self._hits,
            misses=self._misses,
            kept=self._kept,
            refused=self._refused,
            failures=self._failures,
            skipped=self._skipped,
            evictions=use.evictions,
            expirations=use.expirations,
            entries=use.entries,
            nbytes=use.nbytes,
            max_bytes=use.max_bytes,
        )

    async def probe(self) -> str:
        """See `CacheBackend`."""
        try:
            await self._ask(CacheCall(verb="stats"))
        except RequestError as error:
            return error.text
        return ""

    async def close(self) -> None:
        """See `CacheBackend`. The node stays."""
        self._closed = True

    async def _try(self, call: CacheCall) -> CacheAnswer | None:
        if self._closed:
            return None
        if not self._rest.may_try():
            self._skipped += 1
            return None
        try:
            answer = await self._ask(call)
        except RequestError:
            self._failures += 1
            self._rest.failed()
            return None
        self._rest.succeeded()
        return answer

    async def _surely(self, call: CacheCall) -> CacheAnswer:
        """For those who have to know. Raises Unavailable where nobody does."""
        if self._closed:
            raise Unavailable("the cache is closed")
        try:
            return await self._ask(call)
        except RequestError as error:
            raise Unavailable(f"the cache node did not do so: {error.text}") from None

    async def _ask(self, call: CacheCall) -> CacheAnswer:
        context = Context(clock=self._clock).within(self._settings.timeout_s)
        handler = await self._reach()
        answer: Any = await context.run(handler(call, context))  # type: ignore[arg-type]
        if not isinstance(answer, CacheAnswer):
            raise NodeFailed("answered with something that is no answer of a cache")
        return answer
