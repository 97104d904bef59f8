"""What the `cache` layer is made of: rows that one call brings and others wait for, and the rows that a call asks for.

A flight is a number of rows that are being looked up, or computed. Whoever wants one of them meanwhile waits for it. A
lookup belongs to the call that made it, and is abandoned with it; a computation belongs to all that wait for it, and
is cancelled when the last of them has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from copy import copy

import numpy as np

from mesh.context import NodeTiming
from mesh.errors import Cancelled, DeadlineExceeded, InvalidInput, NodeFailed, RequestError
from mesh.tensors import Array, Tensors

__all__ = ["Asked", "Flight", "picked"]


class Flight:
    """Rows on their way, by key.

    Args:
        keys: Of the rows, each once.
        lookup: Whether they are looked up; else they are computed.
        background: Whether it goes on when nobody waits for it.
    """

    __slots__ = (
        "_event", "_waiting", "answer", "background", "blamed", "done", "error", "keys", "looked", "lookup", "places",
        "refused",
    )  # fmt: skip

    def __init__(self, keys: Sequence[bytes], *, lookup: bool = False, background: bool = False) -> None:
        self.keys = keys
        self.lookup = lookup
        self.background = background
        self.done = False
        self.looked = False
        """Whether it tells which of its rows the cache has."""
        self.answer: Tensors | None = None
        """What it brought."""
        self.places: dict[bytes, int] = {}
        """By key, which row of the answer it has."""
        self.refused: dict[bytes, RequestError] = {}
        """By key, the errors that it brought: of this row and of no other."""
        self.error: RequestError | None = None
        """Why it brought nothing."""
        self.blamed: bytes | None = None
        """The key of the row that the error names, where it does."""
        self._event: asyncio.Event | None = None
        self._waiting = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it."""
        return self._waiting > 0

    def join(self) -> None:
        """Count somebody in who will wait."""
        self._waiting += 1

    def leave(self) -> None:
        """Count somebody out."""
        self._waiting -= 1

    async def ended(self) -> None:
        """Return once it is done."""
        if not self.done:
            self._event = self._event or asyncio.Event()
            await self._event.wait()

    def land(self, answer: Tensors | None, places: dict[bytes, int]) -> None:
        """It brought these rows."""
        self.answer, self.places, self.looked = answer, places, self.lookup
        self._end()

    def fail(self, error: RequestError, blamed: bytes | None = None) -> None:
        """It brought nothing.

        Args:
            error: Why.
            blamed: The key of the row that the error names, or of the only one that there was.
        """
        self.error, self.blamed = error, blamed
        if blamed is not None and isinstance(error, InvalidInput | NodeFailed):
            self.refused[blamed] = error
        self._end()

    def spoils(self, keys: Container[bytes]) -> bool:
        """Whether its error is also that of a call for some keys; else that call had better try for itself.

        An error for what rows hold is everybody's who asked for all those rows; the row that is to blame, if known, is
        told apart in `refused`. Time that ran out was that of another call.
        """
        match self.error:
            case DeadlineExceeded() | Cancelled() | None:
                return False
            case InvalidInput() | NodeFailed():
                return self.blamed is None and all(key in keys for key in self.keys)
            case _:
                return True

    def abandon(self) -> None:
        """It ended without anything to tell: others have to go themselves."""
        self._end()

    def _end(self) -> None:
        self.done = True
        if self._event is not None:
            self._event.set()


class Asked:
    """What one call asks for: its rows, those that are alike once.

    Args:
        request: As it came.
        keys: One a row.
    """

    __slots__ = ("_order", "first", "joined", "keys", "led", "looked", "parts", "place", "request", "timings")

    def __init__(self, request: Tensors, keys: Sequence[bytes]) -> None:
        self.place = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        """By key, its place among those that differ."""
        self.keys: Sequence[bytes] = keys
        """Those that differ."""
        self.request = request
        """Their rows."""
        self.first: Sequence[int] = range(len(keys))
        """By place, the row of the request that has it first."""
        self._order: list[int] | None = None
        if len(self.place) < len(keys):
            self._order = [self.place[key] for key in keys]
            self.first = [self._order.index(place) for place in range(len(self.place))]
            self.keys = list(self.place)
            self.request = picked(request, self.first)
        self.parts: list[tuple[Sequence[int], Tensors]] = []
        """What is there so far: places, rising, and their answers."""
        self.joined: list[tuple[Flight, list[int]]] = []
        """Flights that are waited for, and for which places."""
        self.led: Flight | None = None
        """The newest that is this call's own."""
        self.looked: set[int] = set()
        """Places that were looked up, by this call or one that it waited for."""
        self.timings: list[NodeTiming] = []
        """What the node told of its time."""

    @property
    def repeated(self) -> int:
        """Rows that are there more than once, beyond the first."""
        return 0 if self._order is None else len(self._order) - len(self.keys)

    def narrowed(self, places: Sequence[int]) -> Tensors:
        """The rows at some places, rising."""
        return self.request if len(places) == len(self.keys) else picked(self.request, places)

    def whole(self, answer: Tensors) -> Tensors:
        """An answer for every place as one for every row that was asked for."""
        return answer if self._order is None else picked(answer, self._order)

    def own(self, error: RequestError, key: bytes | None, request_id: str) -> RequestError:
        """An error as this call's own: several must not share one exception, nor read another's request id.

        Args:
            error: As it was raised, for other rows.
            key: Of the row that is to blame; None where none is known to be.
            request_id: The call's.
        """
        made = copy(error)
        made.request_id = request_id
        place = None if key is None else self.place.get(key)
        made.row = None if place is None or error.row is None else self.first[place]
        return made


def picked(tensors: Tensors, rows: Sequence[int]) -> Tensors:
    """Some rows in some order, which may come again; with sources, all that was made of each of them."""
    if tensors.sources is None:
        where = np.asarray(rows, dtype=np.intp)
        return Tensors.trusted({name: _read_only(array[where]) for name, array in tensors.items()})
    starts = np.searchsorted(tensors.sources, rows)
    counts = np.searchsorted(tensors.sources, rows, side="right") - starts
    parts = [np.arange(start, start + count) for start, count in zip(starts.tolist(), counts.tolist(), strict=True)]
    where = np.concatenate(parts) if parts else np.empty(0, np.intp)
    sources = _read_only(np.repeat(np.arange(len(rows)), counts))
    return Tensors.trusted({name: _read_only(array[where]) for name, array in tensors.items()}, sources)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array
