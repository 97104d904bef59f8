"""What a listener decides before it calls a handler: which endpoint is meant, and whether there is room for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from mesh.context import Context
from mesh.errors import NotFound, Overloaded, Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.transports.contract import Endpoint, Event, GraphHandler, Limits

__all__ = ["Admission"]

Request = TypeVar("Request")
RETRY_AFTER_S = 0.05


class Admission:
    """The endpoints of one listener, and the count of calls that it works on."""

    def __init__(self, endpoints: Sequence[Endpoint], limits: Limits) -> None:
        self._by_name = {(endpoint.kind, endpoint.name): endpoint for endpoint in endpoints}
        self._unnamed: dict[str, Endpoint] = {}
        for kind in {endpoint.kind for endpoint in endpoints}:
            of_kind = [endpoint for endpoint in endpoints if endpoint.kind == kind]
            front = [endpoint for endpoint in of_kind if endpoint.front] or of_kind
            if len(front) == 1:
                self._unnamed[kind] = front[0]
        self._limits = limits
        self._in_flight = 0
        self._open = True

    @property
    def limits(self) -> Limits:
        """The bounds kept here."""
        return self._limits

    @property
    def kinds(self) -> set[str]:
        """The kinds that are served."""
        return {kind for kind, _ in self._by_name}

    def close(self) -> None:
        """Refuse every call from now on."""
        self._open = False

    def find(self, kind: str, name: str) -> Endpoint:
        """The endpoint that a call means; an empty name means the only one of its kind.

        Raises:
            NotFound: There is none, or more than one.
        """
        found = self._by_name.get((kind, name)) if name else self._unnamed.get(kind)
        if found is None:
            known = ", ".join(sorted(other for of_kind, other in self._by_name if of_kind == kind)) or "none"
            raise NotFound(f"no {kind} is called {name!r} here; there is: {known}")
        return found

    def _enter(self, context: Context) -> None:
        if not self._open:
            raise Unavailable("the worker is draining", request_id=context.request_id)
        if self._in_flight >= self._limits.max_in_flight:
            text = f"the worker has {self._in_flight} calls in flight and takes no more"
            raise Overloaded(text, retry_after_s=RETRY_AFTER_S, request_id=context.request_id)
        self._in_flight += 1

    async def run(self, handler: Handler[Request], request: Request, context: Context) -> Tensors:
        """Call `handler` if there is room, for as long as the deadline allows.

        Raises:
            Overloaded: `max_in_flight` calls are being worked on.
            Unavailable: The listener is draining.
            DeadlineExceeded: The deadline passed first.
        """
        self._enter(context)
        try:
            return await context.run(handler(request, context))
        finally:
            self._in_flight -= 1

    async def stream(self, handler: GraphHandler, request: Tensors, context: Context) -> AsyncIterator[Event]:
        """The same for an answer in pieces; the deadline holds for the last piece."""
        self._enter(context)
        events = handler.stream(request, context)
        try:
            while True:
                try:
                    event = await context.run(anext(events))
                except StopAsyncIteration:
                    return
                yield event
        finally:
            self._in_flight -= 1
            await events.aclose()
