"""`redis://`, `rediss://`, `redis+unix:`: values on a Redis or Valkey server, by redis-py (`mesh.caches.redis_client`).

Many keys are one command, many values one write. Keys on the server are `mesh:`, the namespace, a NUL and the digest;
values are the bytes that were put, never pickled. The server bounds its own memory (`maxmemory` with the policy
`allkeys-lru` makes a cache of it); what it does not take is counted.

A server that is down or slow costs a request at most `timeout_s`, and after three failures in a row nothing for a
second (see `mesh.caches.rest`); then one operation tries anew.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Unpack

from mesh.caches.addresses import RedisAddress
from mesh.caches.aiocache_face import AiocacheFace, AiocacheOptions
from mesh.caches.backend import CacheStats, Entry, Found, lasting_s, prefix_of
from mesh.caches.redis_client import Command, RedisClient, Reply, ReplyError
from mesh.caches.redis_keyspace import count_of, forget_all, info_of
from mesh.caches.rest import Rest
from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import SetupError, Unavailable

__all__ = ["RedisBackend"]

log = logging.getLogger("mesh.cache")

_ROOT = b"mesh:"
_KEYS_A_COMMAND = 1024
_CONTROL_TIMEOUT_S = 5.0
"""How long each step of what an operator asks for may take."""


class RedisBackend(AiocacheFace):
    """A Redis or Valkey server. Connects when it is first asked.

    Args:
        address: Where it is.
        timeout_s: How long to wait for it, connecting included. Also how long a put may take.
        max_value_bytes: The largest value that is kept, or taken.
        max_ttl_s: The longest that any value stays; None for as long as the server keeps it.
        clock: What timeouts are measured by; times to live are measured by the server.
        ca_pem: Certificates to trust beside the system's, for an address with TLS.
        options: What aiocache's backends take.

    Raises:
        SetupError: The timeout is not above zero.
    """

    NAME = "mesh-redis"

    def __init__(
        self,
        address: RedisAddress,
        *,
        timeout_s: float = 0.1,
        max_value_bytes: int = 16 << 20,
        max_ttl_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
        ca_pem: str = "",
        **options: Unpack[AiocacheOptions],
    ) -> None:
        super().__init__(**options)
        if not timeout_s > 0:
            raise SetupError(f"a cache's timeout has to be above zero, and not {timeout_s:g} s")
        self._address = address
        self._timeout_s = timeout_s
        self._max_value_bytes = max_value_bytes
        self._max_ttl_s = max_ttl_s
        self._client = RedisClient(address, clock, ca_pem)
        self._rest = Rest(clock)
        self._closed = False
        self._hits = self._misses = self._kept = self._refused = self._failures = self._skipped = 0

    @property
    def url(self) -> str:
        """Its address without a password."""
        return self._address.url

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        """See `CacheBackend`."""
        prefix = _ROOT + prefix_of(namespace)
        nothing = Found([None] * len(keys), [None] * len(keys) if with_ttl else [])
        if not keys:
            return nothing
        full = [prefix + key for key in keys]
        # Times first: of a value that is put between the two, too short a time is told rather than too long a one.
        commands: list[Command] = [(b"PTTL", key) for key in full] if with_ttl else []
        times = len(commands)
        commands += [
            (b"MGET", *full[start : start + _KEYS_A_COMMAND]) for start in range(0, len(full), _KEYS_A_COMMAND)
        ]

        def understands(replies: list[Reply]) -> bool:
            values = _flat(replies[times:])
            return (
                values is not None
                and len(values) == len(keys)
                and all(isinstance(time, int) for time in replies[:times])
            )

        replies = await self._try(commands, understands)
        found = nothing if replies is None else self._found(_flat(replies[times:]) or [], replies[:times])
        missed = found.values.count(None)
        self._misses += missed
        self._hits += len(keys) - missed
        return found

    def _found(self, values: list[bytes | None], times: list[Reply]) -> Found:
        longest = self._max_value_bytes
        values = [value if value is None or len(value) <= longest else None for value in values]
        ttls_s: list[float | None] = []
        for place, time_ms in enumerate(times):
            assert isinstance(time_ms, int)
            # -1: no limit. -2: it was not there a moment ago, so nobody knows how long it stays. 0: no time left.
            if time_ms in (-2, 0):
                values[place] = None
            ttls_s.append(None if time_ms < 0 or values[place] is None else time_ms / 1000)
        return Found(values, ttls_s)

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        """See `CacheBackend`. Where the server does not take a value, it keeps what was there."""
        prefix = _ROOT + prefix_of(namespace)
        commands: list[Command] = []
        for key, value, ttl_s in entries:
            lasts_s = lasting_s(ttl_s, self._max_ttl_s)
            if len(value) > self._max_value_bytes:
                self._refused += 1
                lasts_s = 0.0
            if lasts_s is None:
                commands.append((b"SET", prefix + key, value))
            elif lasts_s:
                # Never longer than was asked for, but for the last part of a millisecond.
                commands.append((b"SET", prefix + key, value, b"PX", b"%d" % max(1, lasts_s * 1000)))
            else:
                commands.append((b"UNLINK", prefix + key))
        replies = await self._try(commands) if commands else None
        if replies is None:
            return 0
        kept = replies.count(b"OK")
        refusals = [reply for reply in replies if isinstance(reply, ReplyError)]
        if refusals:
            self._failures += 1
            log.debug("cache %s did not keep %d values: %.200s", self.url, len(refusals), refusals[0])
        self._kept += kept
        return kept

    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        """See `CacheBackend`."""
        prefix = _ROOT + prefix_of(namespace)
        deleted = 0
        for start in range(0, len(keys), _KEYS_A_COMMAND):
            names = [prefix + key for key in keys[start : start + _KEYS_A_COMMAND]]
            (reply,) = await self._must([(b"UNLINK", *names)])
            deleted += reply if isinstance(reply, int) else 0
        return deleted

    async def forget(self, namespace: str | None = None) -> int:
        """See `CacheBackend`. Looks at every key of the database, in steps, and only at its own."""
        return await forget_all(self._must, _ROOT if namespace is None else _ROOT + prefix_of(namespace))

    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        """See `CacheBackend`. What the server tells is of its whole database, which others may use as well; evictions
        and expirations are counted from its start.
        """
        told: dict[str, int] = {}
        if not self._closed and not self._rest.resting:
            with contextlib.suppress(Unavailable):
                told = await info_of(self._must)
                if namespace is not None:
                    told["nbytes"] = -1
                    told["entries"] = await count_of(self._must, _ROOT + prefix_of(namespace))
        nbytes, max_bytes = told.get("nbytes", -1), told.get("max_bytes", 0)
        return CacheStats(
            backend=self.url,
            hits=self._hits,
            misses=self._misses,
            kept=self._kept,
            refused=self._refused,
            failures=self._failures,
            skipped=self._skipped,
            evictions=told.get("evictions", 0),
            expirations=told.get("expirations", 0),
            entries=told.get("entries"),
            nbytes=nbytes if nbytes >= 0 else None,
            max_bytes=max_bytes or None,
        )

    async def probe(self) -> str:
        """See `CacheBackend`."""
        try:
            (reply,) = await self._client.ask([(b"PING",)], _CONTROL_TIMEOUT_S)
        except OSError as error:
            return _why(error)
        return (
            f"{reply!s:.200}" if isinstance(reply, ReplyError) else "" if reply == b"PONG" else "it is no Redis server"
        )

    async def _close(self, *args: object, **kwargs: object) -> None:
        self._closed = True
        await self._client.close()

    # ===== asking =====

    async def _must(self, commands: Sequence[Command]) -> list[Reply]:
        """Replies to what an operator asks for.

        Raises:
            Unavailable: There are none, or one is a refusal.
        """
        try:
            replies = await self._client.ask(commands, max(self._timeout_s, _CONTROL_TIMEOUT_S))
        except OSError as error:
            self._failed(error)
            raise Unavailable(f"the cache {self.url} does not answer: {_why(error)}") from None
        self._succeeded()
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise Unavailable(f"the cache {self.url} refused: {reply!s:.200}")
        return replies

    async def _try(
        self, commands: Sequence[Command], understands: Callable[[list[Reply]], bool] | None = None
    ) -> list[Reply] | None:
        """Replies, or None where there are none that make sense."""
        if self._closed or not self._rest.may_try():
            self._skipped += 1
            return None
        try:
            replies = await self._client.ask(commands, self._timeout_s, understands)
        except OSError as error:
            self._failed(error)
            return None
        self._succeeded()
        return replies

    def _succeeded(self) -> None:
        if self._rest.succeeded():
            log.info("cache %s answers again", self.url)

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        if self._rest.failed():
            log.warning("cache %s: %s; going on without it", self.url, _why(error))


def _why(error: OSError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _flat(replies: list[Reply]) -> list[bytes | None] | None:
    """The values of several MGET; None where a reply is none."""
    values: list[bytes | None] = []
    for reply in replies:
        if not isinstance(reply, list):
            return None
        for value in reply:
            if value is not None and not isinstance(value, bytes):
                return None
            values.append(value)
    return values
