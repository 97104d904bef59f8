"""A transport under test: what the rules of `check_transport` work with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mesh.context import Context
from mesh.errors import RequestError
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.transports import Endpoint, Limits, Link, Listener, Transport
from mesh.transports.statistics import Tell

__all__ = ["ROW", "WITHIN_S", "Served", "TransportBench", "echo", "node"]

WITHIN_S = 10.0
"""How long to wait for something that has to happen."""
_TURN_S = 0.005
ROW = Tensors({"x": np.ones((1, 2), np.float32)})
"""A request like any other."""


@dataclass(frozen=True, slots=True)
class Served:
    """A listener, and a link to it."""

    listener: Listener
    link: Link


async def echo(request: Tensors, context: Context, /) -> Tensors:
    """A handler that answers what it was asked."""
    return request


def node(handler: Handler[Any], name: str = "node") -> Endpoint:
    """A predict node."""
    return Endpoint(kind="predict", name=name, handler=handler)


class TransportBench:
    """A transport under test.

    Args:
        rule: The rule that is tried, for the text when it is broken and for addresses.
        transport: What is tried.
        address_for: See `check_transport`.
    """

    def __init__(self, rule: str, transport: Transport, address_for: Callable[[str], str]) -> None:
        self.rule = rule
        self.transport = transport
        self.address_for = address_for

    def hold(self, holds: bool, otherwise: str) -> None:
        """Raise unless something holds."""
        if not holds:
            raise AssertionError(f"the transport breaks the rule '{self.rule}': {otherwise}")

    @asynccontextmanager
    async def serve(
        self, *endpoints: Endpoint, limits: Limits | None = None, tell: Tell | None = None
    ) -> AsyncGenerator[Served, None]:
        """A listener and a link to it, closed in the end."""
        limits = limits or Limits()
        listener = await self.transport.listen(self.address_for(self.rule.replace(" ", "-")), endpoints, limits, tell)
        link = await self.transport.dial(listener.address, limits)
        try:
            yield Served(listener, link)
        finally:
            await link.close()
            await listener.drain(0)

    async def error(self, call: Awaitable[object]) -> RequestError:
        """The request error that a call ends in."""
        try:
            async with asyncio.timeout(WITHIN_S):
                answer = await call
        except RequestError as error:
            return error
        except BaseException as error:
            raise AssertionError(f"the transport breaks the rule '{self.rule}': a call ended in {error!r}") from error
        raise AssertionError(f"the transport breaks the rule '{self.rule}': a call was answered with {answer!r}")

    async def until(self, ready: Callable[[], Awaitable[bool]], wanted: bool, otherwise: str) -> None:
        """Ask again and again, for as long as something has to happen."""
        for _ in range(round(WITHIN_S / _TURN_S)):
            if await ready() is wanted:
                return
            await asyncio.sleep(_TURN_S)
        self.hold(False, otherwise)
