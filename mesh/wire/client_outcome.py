"""`Outcome`: what may be asked of a call, and how those who wait for it hear of a change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc

from mesh.wire.responses import ResponseHead, Status

__all__ = ["Outcome", "metadata_of"]

log = logging.getLogger("mesh.wire")


def metadata_of(pairs: Any) -> grpc.aio.Metadata:
    """Pairs as grpc.aio shows them."""
    return grpc.aio.Metadata(*pairs)


class Outcome:
    """How a call is answered and ends."""

    # As attributes of the class these cost a call nothing that never needs them.
    loop: asyncio.AbstractEventLoop
    deadline: float | None = None
    """Of `time.monotonic`."""
    head: ResponseHead | None = None
    """How the response began."""
    status: Status | None = None
    """How the call ended."""
    cancelled_here = False
    watchers: list[asyncio.Future[None]] | None = None
    callbacks: list[Callable[[], object]] | None = None

    async def changed(self) -> None:
        """Wait until it was sent, was answered or is over."""
        future = self.loop.create_future()
        if self.watchers is None:
            self.watchers = []
        self.watchers.append(future)
        try:
            await future
        finally:
            if self.watchers and future in self.watchers:
                self.watchers.remove(future)

    def wake(self) -> None:
        """Let whoever waits for a change look again."""
        watchers, self.watchers = self.watchers or (), None
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def on_done(self, callback: Callable[[], object]) -> None:
        """Call back when it is over, which may be now."""
        if self.status is not None:
            _run(callback)
        elif self.callbacks is None:
            self.callbacks = [callback]
        else:
            self.callbacks.append(callback)

    def call_back(self) -> None:
        """Call back whoever wants to know that it is over."""
        callbacks, self.callbacks = self.callbacks or (), None
        for callback in callbacks:
            _run(callback)

    async def until_done(self) -> Status:
        """Wait until it is over."""
        while self.status is None:
            await self.changed()
        return self.status

    async def until_answered(self) -> grpc.aio.Metadata:
        """Wait until the response began or the call is over; the initial metadata."""
        while self.head is None and self.status is None:
            await self.changed()
        return metadata_of(self.head.initial if self.head is not None else ())

    def time_left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def raise_for_status(self) -> None:
        """Raise what a call that is over and went wrong raises: AioRpcError, or CancelledError where it was cancelled
        here.
        """
        status = self.status
        if status is None or status.ok:
            return
        if self.cancelled_here:
            raise asyncio.CancelledError
        raise grpc.aio.AioRpcError(
            status.code,
            metadata_of(self.head.initial if self.head is not None else ()),
            metadata_of(status.trailing),
            details=status.details,
            debug_error_string=self.debug(),
        )

    def debug(self) -> str:
        """The end in one line, for people."""
        status = self.status
        if status is None or status.ok:
            return ""
        text = f"{status.code.name}:{status.details}"
        return f"{text} [{status.debug}]" if status.debug else text


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        log.exception("a callback of a call that is done raised")
