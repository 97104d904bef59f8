"""`cache: {in: hot, ttl: 60s}`: a row that was answered before is answered again without the node.

Rows are looked up one by one, all of a batch in one go. Those that are missing are computed together as one smaller
batch, and the answer is put together in order. What is being computed is not computed again: whoever wants the same
row meanwhile waits for it. A caller that goes away leaves the computation to those who wait; the last one out cancels
it. An error reaches all who wait for that row, and nobody else.

The cache is an optimisation and never a reason to fail: one that is down, slow or gives rubbish has missed. A row's key
covers everything that its answer depends on (see `mesh.caches.keys`), provided that the node's answer to a row depends
on that row, and on parameters that are named here. What was answered may differ in its last bits from what the node
would answer now, where a model adds numbers up in another order in another batch.

A request may say how it wants to be served by its parameter `cache`: `skip` neither looks up nor keeps, `refresh`
computes anew and keeps what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mesh.caches import Entry, RowKeys, encode_error, encode_rows, put_together
from mesh.context import Context, cancel_requested
from mesh.errors import InvalidInput, NodeFailed, RequestError, SetupError
from mesh.handler import Handler
from mesh.layers.cache_site import CacheSite
from mesh.layers.flights import Asked, Flight, picked
from mesh.partial import Partial, take_partial
from mesh.tensors import Tensors
from mesh.units import Duration

__all__ = ["BoundCache", "Cache"]

_LONGEST_S = 10 * 365 * 86_400.0
_REFRESH_S = 30.0
"""How long a refresh in the background may take."""
_PARAMETER = "cache"

# Files have lists; settings are frozen.
_AsTuple = BeforeValidator(lambda value: tuple(cast("list[object]", value)) if isinstance(value, list) else value)
_Name = Annotated[str, Field(min_length=1, max_length=128)]


class Cache(BaseModel):
    """Answer rows that were answered before out of a cache.

    It is bound to its cache by whoever builds the node. Raises, when called through: what the node raises, also for a
    row that another caller had computed; InvalidInput for a parameter `cache` that is neither `skip` nor `refresh`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    cache: Annotated[str, Field(alias="in", min_length=1, max_length=63, description="One of the file's caches.")]
    ttl_s: Annotated[Duration | None, Field(gt=0, le=_LONGEST_S, alias="ttl")] = None
    """How long an answer stays; as long as there is room for it if left out."""
    stale_s: Annotated[Duration, Field(ge=0, le=_LONGEST_S, alias="stale")] = 0.0
    """How long after that it is still given, while it is computed anew behind the caller's back."""
    key: Annotated[tuple[_Name, ...], Field(min_length=1), _AsTuple] | None = None
    """The inputs that count; all if left out."""
    parameters: Annotated[tuple[_Name, ...], _AsTuple] = ()
    """The parameters of a request that count."""
    negative_s: Annotated[Duration | None, Field(gt=0, le=_LONGEST_S, alias="negative")] = None
    """How long it is remembered that the node does not take a row; not at all if left out."""
    max_refreshes: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most computations behind callers' backs at once; what is stale beyond them waits for the next caller."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.stale_s and self.ttl_s is None:
            raise ValueError("stale needs a ttl: what has no end is never stale")
        for what, names in (("key", self.key or ()), ("parameters", self.parameters)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names something twice")
        return self

    def bound(self, site: CacheSite) -> BoundCache:
        """The layer at one node, with its cache in its hands."""
        return BoundCache(self, site)

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        raise SetupError(f"a cache layer has to be bound to its cache {self.cache!r} before it is put around anything")


@dataclass(frozen=True, slots=True)
class BoundCache:
    """A cache layer with its cache: what can be put around a handler."""

    settings: Cache
    site: CacheSite

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Caching(self.settings, self.site, handler)


class _Caching:
    def __init__(self, settings: Cache, site: CacheSite, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._site = site
        self._handler = handler
        self._keys = RowKeys(replace(site.keys, inputs=settings.key, parameters=settings.parameters))
        self._flights: dict[bytes, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}
        self._refreshing = 0

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        how = context.parameters.get(_PARAMETER)
        if how == "skip":
            return await self._handler(request, context)
        if how not in (None, "refresh"):
            text = f"the parameter {_PARAMETER!r} is 'skip' or 'refresh', and not {how!r:.40}"
            raise InvalidInput(text, request_id=context.request_id)
        try:
            rows = request.rows
            keys = self._keys.digest_rows(request, parameters=context.parameters, digests=context.digests)
        except InvalidInput:
            rows, keys = 0, []
        if not rows or len(keys) != rows:
            return await self._handler(request, context)  # the node says what is wrong with it
        if how is None and self._flights.keys().isdisjoint(keys):
            # The common case of a warm cache in this process: no flight, no task.
            answer = self._site.at_hand(keys, self._settings.stale_s)
            if answer is not None:
                different = len(set(keys))
                self._site.counter.hits += different
                self._site.counter.coalesced += rows - different
                return answer
        asked = Asked(request, keys)
        self._site.counter.coalesced += asked.repeated
        try:
            await self._gather(asked, context, anew=how == "refresh")
        finally:
            self._leave(asked)
        if context.timings is not None:
            context.timings.extend(asked.timings)
        whole = put_together(asked.parts, len(asked.keys))
        if whole is None:
            whole = await self._recompute(asked, context)
        return asked.whole(whole)

    async def _gather(self, asked: Asked, context: Context, *, anew: bool) -> None:
        """Have an answer for each place."""
        missing: list[int] = list(range(len(asked.keys)))
        if anew:
            self._lead(asked, missing, context)
            missing = []
        while missing or asked.joined:
            if missing:
                await self._set_out(asked, missing, context)
            missing = []
            for flight, places in asked.joined:
                await flight.ended()
                missing += self._take(flight, places, asked, context)
            self._leave(asked)
            missing.sort()

    async def _set_out(self, asked: Asked, places: Sequence[int], context: Context) -> None:
        """Join the flights that there are; look up, and then compute, what nobody brings."""
        unlooked = self._join(asked, [place for place in places if place not in asked.looked], background=False)
        missing = [place for place in places if place in asked.looked]
        if unlooked:
            missing += await self._look_up(asked, unlooked, context)
        if missing := self._join(asked, sorted(missing), background=True):
            self._lead(asked, missing, context)

    def _join(self, asked: Asked, places: Sequence[int], *, background: bool) -> list[int]:
        """Wait for what others bring; returns the places that nobody does.

        Where it is not known yet whether there is an answer, a refresh in the background is no reason to wait.
        """
        joined: dict[Flight, list[int]] = {}
        free: list[int] = []
        for place in places:
            flight = self._flights.get(asked.keys[place])
            if flight is None or (flight.background and not background):
                free.append(place)
            else:
                joined.setdefault(flight, []).append(place)
        for flight, wanted in joined.items():
            flight.join()
            asked.joined.append((flight, wanted))
        return free

    def _leave(self, asked: Asked) -> None:
        joined, asked.joined = asked.joined, []
        for flight, _ in joined:
            flight.leave()
            if not (flight.wanted or flight.done or flight.background or flight.lookup):
                self._forget(flight)
                if (task := self._tasks.get(flight)) is not None:
                    task.cancel()

    def _forget(self, flight: Flight, keys: Iterable[bytes] | None = None) -> None:
        """Nobody joins it from now on, or not for these keys."""
        for key in flight.keys if keys is None else keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    # Looking up.

    async def _look_up(self, asked: Asked, places: list[int], context: Context) -> list[int]:
        """Ask the cache for some places; returns those that it does not have."""
        keys = asked.keys if len(places) == len(asked.keys) else [asked.keys[place] for place in places]
        flight = Flight(keys, lookup=True)
        for key in keys:
            # One that is refreshed in the background stays as it is.
            self._flights.setdefault(key, flight)
        try:
            hits, stale = await self._site.look_up(keys, self._settings.stale_s)
        except BaseException:
            flight.abandon()
            raise
        finally:
            self._forget(flight)
        flight.refused = dict(zip((keys[place] for place in hits.errors), hits.errors.values(), strict=True))
        flight.land(hits.tensors, {keys[place]: row for row, place in enumerate(hits.rows)})
        asked.looked.update(places)
        self._site.counter.hits += len(hits.rows)
        if hits.errors:
            self._site.counter.negative += len(hits.errors)
            place = min(hits.errors)
            raise asked.own(hits.errors[place], keys[place], context.request_id)
        if hits.tensors is not None:
            asked.parts.append(([places[place] for place in hits.rows], hits.tensors))
            if stale:
                self._site.counter.stale += len(stale)
                self._refresh(asked, [places[place] for place in stale], context)
            if len(hits.rows) == len(places):
                return []
        found = set(hits.rows)
        return [place for index, place in enumerate(places) if index not in found]

    # Computing.

    def _lead(self, asked: Asked, places: list[int], context: Context) -> None:
        """Compute some places, for this call and whoever joins it."""
        self._site.counter.misses += len(places)
        # Of its own, so that a computation that goes on without this call tells it nothing any more.
        timings = None if context.timings is None else asked.timings
        own = context if timings is None and len(places) == 1 else replace(context, timings=timings, partial=True)
        asked.led = self._begin([asked.keys[place] for place in places], asked.narrowed(places), own)
        asked.led.join()
        asked.joined.append((asked.led, places))

    def _refresh(self, asked: Asked, places: list[int], context: Context) -> None:
        """Compute some places anew behind the caller's back, if there is room for it."""
        free = [place for place in places if asked.keys[place] not in self._flights]
        if not free or self._refreshing >= self._settings.max_refreshes:
            return
        self._refreshing += 1
        self._site.counter.refreshes += len(free)
        behind = Context(parameters=context.parameters, partial=True, clock=context.clock).within(_REFRESH_S)
        self._begin([asked.keys[place] for place in free], picked(asked.request, free), behind, background=True)

    def _begin(self, keys: list[bytes], request: Tensors, context: Context, *, background: bool = False) -> Flight:
        flight = Flight(keys, background=background)
        for key in keys:
            self._flights[key] = flight  # also where another is on its way: what is computed anew is newer
        task = asyncio.get_running_loop().create_task(self._compute(flight, request, context))
        self._tasks[flight] = task
        self._site.running.add(task)
        task.add_done_callback(lambda task: self._ended(flight, task))
        return flight

    def _ended(self, flight: Flight, task: asyncio.Task[None]) -> None:
        self._site.running.discard(task)
        del self._tasks[flight]
        self._refreshing -= flight.background
        if not flight.done:
            flight.abandon()  # cancelled before it began
        self._forget(flight)

    async def _compute(self, flight: Flight, request: Tensors, context: Context) -> None:
        keys = flight.keys
        try:
            work = self._handler(request, context)
            answer = await (context.run(work) if flight.background else work)
            _check_rows(answer, len(keys))
        except (asyncio.CancelledError, Exception) as error:
            if isinstance(error, asyncio.CancelledError) and cancel_requested():
                raise
            await self._failed(flight, _request_error(error, context))
        else:
            flight.land(answer, {key: row for row, key in enumerate(keys)})
            await self._put(flight, lambda: self._entries(keys, answer))
        finally:
            self._forget(flight)
            del flight  # an error in it knows this frame, by its traceback: no cycle is left behind

    async def _failed(self, flight: Flight, error: RequestError) -> None:
        partial = take_partial(error)
        if partial is not None and partial.within(len(flight.keys)):
            await self._failed_in_part(flight, partial)
            return
        keys, row = flight.keys, error.row
        alone = 0 if len(keys) == 1 else None
        blamed = row if row is not None and 0 <= row < len(keys) else alone
        key = None if blamed is None else keys[blamed]
        remembered = self._remembered({} if key is None else {key: error})
        if not remembered:
            self._forget(flight)  # whoever comes from now on tries for himself
        flight.fail(error, key)
        if remembered:
            await self._put(flight, lambda: remembered)

    async def _failed_in_part(self, flight: Flight, partial: Partial) -> None:
        """Some rows failed, each by itself; others did not, or were left alone."""
        keys = [flight.keys[row] for row in partial.rows]
        flight.refused = {flight.keys[row]: error for row, error in partial.errors.items()}
        remembered = self._remembered(flight.refused)
        self._forget(flight, set(flight.keys).difference(keys, (entry.key for entry in remembered)))
        flight.land(partial.answer, {key: place for place, key in enumerate(keys)})
        await self._put(flight, lambda: self._entries(keys, partial.answer) + remembered)

    def _remembered(self, refused: Mapping[bytes, RequestError]) -> list[Entry]:
        """What is kept of errors."""
        ttl_s = self._settings.negative_s
        kept = {} if ttl_s is None else refused
        return [Entry(key, encode_error(key, e), ttl_s) for key, e in kept.items() if isinstance(e, InvalidInput)]

    def _entries(self, keys: Sequence[bytes], answer: Tensors) -> list[Entry]:
        """What is kept of answers."""
        settings = self._settings
        ttl_s = None if settings.ttl_s is None else settings.ttl_s + settings.stale_s
        return [Entry(key, value, ttl_s) for key, value in zip(keys, encode_rows(keys, answer), strict=True)]

    async def _put(self, flight: Flight, entries: Callable[[], list[Entry]]) -> None:
        def still() -> list[Entry]:
            # What was begun again since is left to who did so.
            return [entry for entry in entries() if self._flights.get(entry.key) is flight]

        await self._site.keep(still)

    async def _recompute(self, asked: Asked, context: Context) -> Tensors:
        """Rows of different shapes do not go into one tensor: the node has to be asked for all of them together."""
        self._site.counter.recomputed += 1
        try:
            return await self._handler(asked.request, context)
        except RequestError as error:
            if error.row is not None and 0 <= error.row < len(asked.first):
                error.row = asked.first[error.row]
            raise

    # What a flight brought.

    def _take(self, flight: Flight, places: list[int], asked: Asked, context: Context) -> list[int]:
        """Take what a flight brought; returns the places that it did not bring.

        Raises:
            RequestError: It failed in a way that this call would have, too.
        """
        keys, ours = asked.keys, flight is asked.led
        for place in places:
            if (error := flight.refused.get(keys[place])) is not None:
                self._site.counter.negative += flight.lookup
                raise asked.own(error, keys[place], context.request_id)
        if flight.error is not None:
            if ours or flight.spoils(asked.place):
                raise asked.own(flight.error, flight.blamed, context.request_id)
            context.check_deadline()
            return places
        if flight.looked:
            asked.looked.update(places)
        if flight.answer is None:
            return places
        found = [place for place in places if keys[place] in flight.places]
        if found:
            rows = [flight.places[keys[place]] for place in found]
            alike = len(rows) == len(flight.places) and rows == list(range(len(rows)))
            asked.parts.append((found, flight.answer if alike else picked(flight.answer, rows)))
            if flight.lookup:
                self._site.counter.hits += len(found)
            elif not ours:
                self._site.counter.coalesced += len(found)
        return [place for place in places if keys[place] not in flight.places]


def _check_rows(answer: Tensors, rows: int) -> None:
    """Hold an answer against the rows that were asked for: with one too few, nobody could tell whose is whose."""
    if answer.sources is not None:
        if len(answer.sources) and int(answer.sources[-1]) >= rows:
            raise NodeFailed(f"gave a row of row {answer.sources[-1]}, where {rows} were given")
        return
    for name, array in answer.items():
        if array.shape[:1] != (rows,):
            raise NodeFailed(f"gave a tensor {name!r} of shape {list(array.shape)} for {rows} rows", tensor=name)


def _request_error(error: BaseException, context: Context) -> RequestError:
    try:
        context.explain(error)
    except NodeFailed as foreign:
        return foreign
    return cast("RequestError", error)
