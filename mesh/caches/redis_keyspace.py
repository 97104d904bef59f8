"""What an operator asks of a Redis or Valkey server: forget, count, tell. In steps that never hold the server up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from mesh.caches.redis_client import Command, Reply
from mesh.errors import Unavailable

__all__ = ["count_of", "forget_all", "info_of"]

Ask = Callable[[Sequence[Command]], Awaitable[list[Reply]]]
"""Commands to replies; raises Unavailable."""

_STEP = b"1000"
"""Keys that the server looks at in one step."""
_MAX_STEPS = 1_000_000
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_-@.\0")


async def forget_all(ask: Ask, prefix: bytes) -> int:
    """Delete every key with this prefix; how many there were.

    Raises:
        Unavailable: The server does not answer, or not to the question.
    """
    forgotten = 0
    async for keys in _keys(ask, prefix):
        (reply,) = await ask([(b"UNLINK", *keys)])
        forgotten += reply if isinstance(reply, int) else 0
    return forgotten


async def count_of(ask: Ask, prefix: bytes) -> int:
    """How many keys have this prefix.

    Raises:
        Unavailable: The server does not answer, or not to the question.
    """
    count = 0
    async for keys in _keys(ask, prefix):
        # A scan may tell a key twice while the server's table grows; in one step it does not matter much.
        count += len(set(keys))
    return count


async def info_of(ask: Ask) -> dict[str, int]:
    """`entries`, `nbytes`, `max_bytes` (0 for no bound), `evictions`, `expirations`, as far as the server tells them.

    Raises:
        Unavailable: The server does not answer.
    """
    memory, stats, entries = await ask([(b"INFO", b"memory"), (b"INFO", b"stats"), (b"DBSIZE",)])
    lines = b"\r\n".join(part for part in (memory, stats) if isinstance(part, bytes)).split(b"\r\n")
    pairs = dict(line.split(b":", 1) for line in lines if b":" in line)
    names = {
        "nbytes": b"used_memory",
        "max_bytes": b"maxmemory",
        "evictions": b"evicted_keys",
        "expirations": b"expired_keys",
    }
    told = {ours: int(pairs[theirs]) for ours, theirs in names.items() if pairs.get(theirs, b"").isdigit()}
    return {**told, "entries": entries} if isinstance(entries, int) else told


async def _keys(ask: Ask, prefix: bytes) -> AsyncGenerator[list[bytes]]:
    cursor = b"0"
    for _ in range(_MAX_STEPS):
        (reply,) = await ask([(b"SCAN", cursor, b"MATCH", _escaped(prefix) + b"*", b"COUNT", _STEP)])
        match reply:
            case [bytes() as cursor, list() as found]:
                keys = [key for key in found if isinstance(key, bytes) and key.startswith(prefix)]
            case _:
                raise Unavailable("the cache's server does not scan as Redis does")
        if keys:
            yield keys
        if cursor == b"0":
            return
    raise Unavailable(f"the cache's server has more keys than {_MAX_STEPS} steps of {int(_STEP)} reach")


def _escaped(prefix: bytes) -> bytes:
    """A pattern that matches these bytes and nothing else."""
    return b"".join(bytes([byte]) if byte in _PLAIN else b"\\" + bytes([byte]) for byte in prefix)
