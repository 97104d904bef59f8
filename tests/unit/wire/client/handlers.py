"""Handlers that tests of a client share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

__all__ = ["Hanging", "chat", "count", "echo", "echo_once", "join"]


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def join(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


class Hanging:
    """Handlers that wait until they are cancelled."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def unary(self, request: Any, context: Any) -> bytes:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return b""

    async def stream(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        self.began.set()
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def echo_once(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request
