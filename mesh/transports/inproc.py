"""`inproc://name`: a transport inside one process, and a peer of the others.

Strict mode sends every request, answer and error through the codec and back, so that what only a wire would show
(datatypes, shapes, error fields, size bounds) shows in tests that open no port.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from mesh.context import Context, cancel_requested
from mesh.errors import NotFound, PlacementError, RequestError, Unavailable
from mesh.handler import Branches, Handler
from mesh.keeping import CacheCall
from mesh.tensors import Tensors
from mesh.transports.admission import Admission, Request
from mesh.transports.cache_codec import CACHE_VERBS, decode_answer, decode_call, encode_answer, encode_call
from mesh.transports.codec import (
    context_of,
    decode_branch,
    encode_branch,
    encode_options,
)
from mesh.transports.contract import CACHE, CACHES, UNCOUNTED, Endpoint, Limits, Service, node_named
from mesh.transports.report import encode_report, note_report
from mesh.transports.statistics import Statistics, Tell
from mesh.transports.statistics_codec import decode_statistics, encode_statistics
from mesh.transports.status import decode_error, encode_error
from mesh.v1 import aggregate_service_pb2, call_pb2, error_pb2, graph_service_pb2

__all__ = ["InprocTransport"]

_SCHEME = "inproc://"
_CUT_OFF_S = 1.0
"""How long a call that was cut off may take to end."""


class InprocTransport:
    """Listeners and links of one process; two transports do not know each other's names.

    Args:
        strict: Whether everything goes through the codec, as it would over a wire.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._listeners: dict[str, _InprocListener] = {}

    async def listen(
        self,
        address: str,
        endpoints: Sequence[Endpoint],
        limits: Limits,
        tell: Tell | None = None,
        services: Sequence[Service] = (),
    ) -> _InprocListener:
        """Serve `endpoints` under a name.

        Raises:
            PlacementError: The name is taken, or the address is none of this scheme; or there are services, which
                nobody could call here.
        """
        _check_address(address)
        if services:
            raise PlacementError(f"{address} cannot answer for {services[0].name}: that needs grpc:// or unix:")
        if address in self._listeners:
            raise PlacementError(f"{address} is in use")
        listener = _InprocListener(address, Admission(endpoints, limits), tell, self._listeners)
        self._listeners[address] = listener
        return listener

    async def dial(self, address: str, limits: Limits) -> _InprocLink:
        """A link to a name.

        Raises:
            PlacementError: The address is none of this scheme.
        """
        _check_address(address)
        return _InprocLink(address, self._listeners, limits, strict=self._strict)


def _check_address(address: str) -> None:
    if not address.startswith(_SCHEME) or address == _SCHEME:
        raise PlacementError(f"{address!r} is no address: write {_SCHEME}name")


class _InprocListener:
    def __init__(
        self, address: str, admission: Admission, tell: Tell | None, among: dict[str, _InprocListener]
    ) -> None:
        self._address = address
        self._among = among
        self.tell = tell
        self.admission = admission
        self.calls: set[asyncio.Task[Tensors]] = set()

    @property
    def address(self) -> str:
        return self._address

    async def drain(self, grace_s: float) -> None:
        self.admission.close()
        # By now another listener may have the name.
        if self._among.get(self._address) is self:
            del self._among[self._address]
        if self.calls:
            await asyncio.wait(self.calls, timeout=grace_s)
        if left := set(self.calls):
            for call in left:
                call.cancel()
            await asyncio.wait(left, timeout=_CUT_OFF_S)


class _InprocLink:
    def __init__(self, address: str, among: dict[str, _InprocListener], limits: Limits, *, strict: bool) -> None:
        self._address = address
        self._among = among
        self._limits = limits
        self._strict = strict
        self._calls: set[asyncio.Task[Tensors]] = set()
        self._closed = False

    def handler(self, kind: str, name: str) -> Handler[Any]:
        ask = self._through_codec if self._strict else self._ask

        async def call(request: Request, context: Context, /) -> Tensors:
            if isinstance(request, CacheCall) and name != CACHES:
                request = replace(request, cache=name)
            try:
                return await ask(kind, name, request, context)
            except RequestError as error:
                error.locate(node=node_named(kind, name), request_id=context.request_id)
                raise

        return call

    async def _ask(self, kind: str, name: str, request: Request, context: Context) -> Tensors:
        listener = None if self._closed else self._among.get(self._address)
        if listener is None:
            raise Unavailable("the worker cannot be reached")
        admission = listener.admission
        asked = request.cache if isinstance(request, CacheCall) else ""
        endpoint = admission.find_cache(asked) if kind == CACHE else admission.find(kind, name)
        # A task of its own, so that hanging up and draining can cut it off as a broken connection would.
        task = asyncio.ensure_future(listener.admission.run(endpoint, request, context))
        for calls in (self._calls, listener.calls):
            calls.add(task)
            task.add_done_callback(calls.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not cancel_requested():
                raise Unavailable("the worker cannot be reached") from None
            task.cancel()
            raise

    async def _through_codec(self, kind: str, name: str, request: Request, context: Context) -> Tensors:
        if isinstance(request, CacheCall):
            return await self._cache_through_codec(kind, name, request, context)
        started = time.perf_counter()
        options = call_pb2.CallOptions.FromString(encode_options(context).SerializeToString())
        far = context_of(options, context.remaining_s(), context.clock)
        sent = _resend(request) if isinstance(request, Tensors) else _resend_branches(request)
        answer = await self._with_error_through_codec(kind, name, sent, far)
        elapsed_s = time.perf_counter() - started
        note_report(encode_report(far, elapsed_s) or call_pb2.CallReport(), elapsed_s, context)
        return _resend(answer)

    async def _with_error_through_codec(self, kind: str, name: str, request: Request, context: Context) -> Tensors:
        try:
            return await self._ask(kind, name, request, context)
        except RequestError as error:
            wire = encode_error(error).SerializeToString()
            raise decode_error(error_pb2.ErrorDetail.FromString(wire)) from None

    async def _cache_through_codec(self, kind: str, name: str, request: CacheCall, context: Context) -> Tensors:
        verb: Any = CACHE_VERBS[request.verb]
        sent = decode_call(request.verb, verb.request.FromString(encode_call(request).SerializeToString()))
        answer: Any = await self._with_error_through_codec(kind, name, sent, context)
        wire = encode_answer(request.verb, answer).SerializeToString()
        return cast("Tensors", decode_answer(request, verb.response.FromString(wire)))

    async def stats(self, timeout_s: float, *, own: bool = False) -> Statistics:
        listener = None if self._closed else self._among.get(self._address)
        if listener is None:
            raise Unavailable("the worker cannot be reached")
        if listener.tell is None:
            raise NotFound(UNCOUNTED)
        told = await Context().within(timeout_s).run(listener.tell(own))
        if not self._strict:
            return told
        wire = encode_statistics(told).SerializeToString()
        return decode_statistics(graph_service_pb2.GraphServiceStatsResponse.FromString(wire))

    async def ready(self) -> bool:
        return not self._closed and self._address in self._among

    async def close(self) -> None:
        self._closed = True
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CUT_OFF_S)


def _resend(tensors: Tensors) -> Tensors:
    message = encode_branch(tensors)
    return decode_branch(aggregate_service_pb2.BranchTensors.FromString(message.SerializeToString()))


def _resend_branches(branches: Branches) -> Branches:
    resent = {
        name: _resend(result) if isinstance(result, Tensors) else decode_error(encode_error(result))
        for name, result in branches.items()
    }
    return Branches(resent, branches.rows)
