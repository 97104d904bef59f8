"""What a listener decides before it calls a handler: which endpoint is meant, and whether there is room for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, RequestError, Unavailable
from mesh.handler import Branches
from mesh.keeping import CacheAnswer, CacheCall
from mesh.tensors import Tensors
from mesh.transports.contract import CACHE, MAX_PARAMETERS, Endpoint, Event, GraphHandler, Limits

__all__ = ["RETRY_AFTER_S", "Admission", "Request", "check_request"]

Request = Tensors | Branches | CacheCall
"""What an endpoint is asked, by its kind."""

RETRY_AFTER_S = 0.05
"""The hint of a listener that is full: it cannot know how long its calls take."""


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
        self._most_bytes = {kind: limits.most_bytes(kind) for kind in self.kinds}
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

    def find_cache(self, name: str) -> Endpoint:
        """The cache node of a name, or else who answers for caches.

        Raises:
            NotFound: There is neither.
        """
        return self._by_name.get((CACHE, name)) or self.find(CACHE, "")

    def _enter(self, context: Context) -> Context:
        """Count a call in, and give it a deadline where it has none."""
        if not self._open:
            raise Unavailable("the worker is draining")
        if self._in_flight >= self._limits.max_in_flight:
            text = f"the worker has {self._in_flight} calls in flight and takes no more"
            raise Overloaded(text, retry_after_s=RETRY_AFTER_S)
        if len(context.parameters) > MAX_PARAMETERS:
            raise InvalidInput(f"{len(context.parameters)} parameters; at most {MAX_PARAMETERS} are taken")
        self._in_flight += 1
        return context if context.deadline is not None else context.within(self._limits.default_timeout_s)

    async def run(self, endpoint: Endpoint, request: Request, context: Context) -> Tensors:
        """Call an endpoint if there is room, for as long as the deadline allows.

        Raises:
            RequestError: Whatever the handler ended in; names its node and the request.
            Overloaded: `max_in_flight` calls are being worked on.
            Unavailable: The listener is draining.
            DeadlineExceeded: The deadline passed first.
            InvalidInput: Request or answer are larger than one call carries.
        """
        try:
            limited = self._enter(context)
            try:
                check_request(request, self._most_bytes[endpoint.kind])
                answer = await limited.run(endpoint.handler(request, limited))
                return self._checked(answer, endpoint)
            finally:
                self._in_flight -= 1
        except BaseException as error:
            context.explain(error, node=endpoint.node)
            raise

    async def stream(self, endpoint: Endpoint, request: Tensors, context: Context) -> AsyncGenerator[Event, None]:
        """The same for an answer in pieces; the deadline holds for the last piece."""
        try:
            limited = self._enter(context)
            try:
                check_request(request, self._most_bytes[endpoint.kind])
                events = cast("GraphHandler", endpoint.handler).stream(request, limited)
                async with aclosing(events):
                    while True:
                        try:
                            node, result = await limited.run(anext(events))
                        except StopAsyncIteration:
                            return
                        yield node, result if isinstance(result, RequestError) else self._checked(result, endpoint)
            finally:
                self._in_flight -= 1
        except GeneratorExit:
            raise
        except BaseException as error:
            context.explain(error, node=endpoint.node)
            raise

    def _checked(self, answer: object, endpoint: Endpoint) -> Tensors:
        if not isinstance(answer, Tensors):
            if endpoint.kind == CACHE and isinstance(answer, CacheAnswer):
                return cast("Tensors", answer)  # whoever asks a cache knows what it answers
            raise NodeFailed(f"answered with {type(answer).__name__} instead of Tensors")
        answer.check_size(self._most_bytes[endpoint.kind], "gives")
        return answer


def check_request(request: Request, most_bytes: int) -> None:
    """Hold a request's size against what a call carries.

    Raises:
        InvalidInput: It is larger; names the largest tensor.
    """
    if isinstance(request, Tensors):
        request.check_size(most_bytes, "takes")
    elif isinstance(request, CacheCall):
        request.check_size(most_bytes)
    else:
        for result in request.values():
            if isinstance(result, Tensors):
                result.check_size(most_bytes, "takes")
