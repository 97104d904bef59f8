"""`inproc://name`: a transport inside one process, and a peer of the others.

Strict mode sends every request, answer and error through the codec and back, so that what only a wire would show
(datatypes, shapes, error fields, size bounds) shows in tests that open no port.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from mesh.context import Context
from mesh.errors import PlacementError, RequestError, Unavailable
from mesh.handler import Branches, Handler
from mesh.tensors import Tensors
from mesh.transports.admission import Admission
from mesh.transports.codec import (
    context_of,
    decode_report,
    decode_tensors,
    encode_options,
    encode_report,
    encode_tensors,
)
from mesh.transports.contract import Endpoint, Limits
from mesh.transports.status import decode_error, encode_error
from mesh.v1 import call_pb2, error_pb2, graph_service_pb2

__all__ = ["InprocTransport"]


class InprocTransport:
    """Listeners and links of one process; two transports do not know each other's names.

    Args:
        strict: Whether everything goes through the codec, as it would over a wire.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._listeners: dict[str, _InprocListener] = {}

    async def listen(self, address: str, endpoints: Sequence[Endpoint], limits: Limits) -> _InprocListener:
        """Serve `endpoints` under a name. Raises PlacementError when the name is taken."""
        if address in self._listeners:
            raise PlacementError(f"{address} is in use")
        listener = _InprocListener(address, Admission(endpoints, limits), self._listeners)
        self._listeners[address] = listener
        return listener

    async def dial(self, address: str, limits: Limits) -> _InprocLink:
        """A link to a name."""
        return _InprocLink(address, self._listeners, limits, strict=self._strict)


class _InprocListener:
    def __init__(self, address: str, admission: Admission, among: dict[str, _InprocListener]) -> None:
        self._address = address
        self._among = among
        self.admission = admission
        self.calls: set[asyncio.Task[Tensors]] = set()

    @property
    def address(self) -> str:
        return self._address

    async def drain(self, grace_s: float) -> None:
        self.admission.close()
        self._among.pop(self._address, None)
        if self.calls:
            await asyncio.wait(self.calls, timeout=grace_s)
        for call in self.calls:
            call.cancel()


class _InprocLink:
    def __init__(self, address: str, among: dict[str, _InprocListener], limits: Limits, *, strict: bool) -> None:
        self._address = address
        self._among = among
        self._limits = limits
        self._strict = strict
        self._calls: set[asyncio.Task[Tensors]] = set()
        self._closed = False

    def handler(self, kind: str, name: str) -> Handler[Any]:
        async def call(request: Tensors | Branches, context: Context, /) -> Tensors:
            listener = None if self._closed else self._among.get(self._address)
            if listener is None:
                raise Unavailable("the worker cannot be reached", request_id=context.request_id)
            endpoint = listener.admission.find(kind, name)
            if self._strict:
                return await self._through_codec(listener, endpoint, request, context)
            return await self._watch(listener, listener.admission.run(endpoint.handler, request, context))

        return call

    async def _watch(self, listener: _InprocListener, work: Any) -> Tensors:
        # A task of its own, so that hanging up and draining can cut it off as a broken connection would.
        task: asyncio.Task[Tensors] = asyncio.ensure_future(work)
        for calls in (self._calls, listener.calls):
            calls.add(task)
            task.add_done_callback(calls.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable("the worker cannot be reached") from None
            task.cancel()
            raise

    async def _through_codec(
        self, listener: _InprocListener, endpoint: Endpoint, request: Tensors | Branches, context: Context
    ) -> Tensors:
        options = call_pb2.CallOptions.FromString(encode_options(context).SerializeToString())
        far = context_of(options, context.remaining_s(), context.clock)
        started = time.perf_counter()
        sent = _resend(request) if isinstance(request, Tensors) else _resend_branches(request)
        try:
            answer = await self._watch(listener, listener.admission.run(endpoint.handler, sent, far))
        except RequestError as error:
            wire = encode_error(error).SerializeToString()
            raise decode_error(error_pb2.ErrorDetail.FromString(wire)) from None
        if context.timings is not None:
            elapsed_s = time.perf_counter() - started
            context.timings.extend(decode_report(encode_report(far, elapsed_s) or call_pb2.CallReport(), elapsed_s))
        return _resend(answer)

    async def ready(self) -> bool:
        return not self._closed and self._address in self._among

    async def close(self) -> None:
        self._closed = True
        for call in self._calls:
            call.cancel()


def _resend(tensors: Tensors) -> Tensors:
    message = graph_service_pb2.RunRequest(inputs=encode_tensors(tensors))
    return decode_tensors(graph_service_pb2.RunRequest.FromString(message.SerializeToString()).inputs)


def _resend_branches(branches: Branches) -> Branches:
    return {
        name: _resend(result) if isinstance(result, Tensors) else decode_error(encode_error(result))
        for name, result in branches.items()
    }
