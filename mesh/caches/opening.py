"""From what a topology file says of a cache to its backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mesh.caches.addresses import SCHEMES, parse_redis, scheme_of
from mesh.caches.backend import ENTRY_OVERHEAD, MIN_BYTES, CacheBackend
from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import SetupError

__all__ = ["BackendSettings", "Opener", "check_backend", "open_backend"]

MAX_TIERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """How a backend is opened. Checked by `check_backend`."""

    max_bytes: int = 256 << 20
    """Most bytes of a backend in this process: of each, where tiers have several."""
    max_value_bytes: int = 16 << 20
    """The largest value that is kept; a bound below it is lower still for values."""
    max_ttl_s: float | None = None
    """The longest that any value stays, in seconds; None for as long as there is room."""
    timeout_s: float = 0.1
    """How long a request waits for a backend outside this process."""


Opener = Callable[[str, BackendSettings, Clock], CacheBackend]
"""Opens a backend by its address. Raises SetupError; connects when it is first asked."""

_DEFAULTS = BackendSettings()
_NO_OPENERS: Mapping[str, Opener] = {}


def check_backend(
    where: str | Sequence[str],
    settings: BackendSettings = _DEFAULTS,
    *,
    value_bytes: int = 1,
    openers: Mapping[str, Opener] = _NO_OPENERS,
) -> None:
    """Find what is wrong with a cache's settings, without opening anything.

    Args:
        where: The address of the backend, or of each tier, the uppermost first.
        settings: The rest.
        value_bytes: What one value takes at least, where that is known: `VALUE_OVERHEAD` and the elements of a row.
        openers: Backends beside the built-in ones, by scheme.

    Raises:
        SetupError: The first thing that is wrong.
    """
    if settings.max_ttl_s is not None and not (settings.max_ttl_s > 0 and math.isfinite(settings.max_ttl_s)):
        raise SetupError(f"a time to live has to be above zero, and not {settings.max_ttl_s:g} s")
    if not (settings.timeout_s > 0 and math.isfinite(settings.timeout_s)):
        raise SetupError(f"a cache's timeout has to be above zero, and not {settings.timeout_s:g} s")
    if settings.max_bytes < MIN_BYTES:
        raise SetupError(f"a cache of {settings.max_bytes} bytes: at least {MIN_BYTES} are needed")
    if settings.max_value_bytes < 1:
        raise SetupError(f"values of {settings.max_value_bytes} bytes: at least 1 is needed")
    if value_bytes > settings.max_value_bytes:
        text = f"a cache whose values have at most {settings.max_value_bytes} bytes cannot hold one of {value_bytes}"
        raise SetupError(text)
    addresses = [where] if isinstance(where, str) else list(where)
    if not isinstance(where, str) and not 2 <= len(addresses) <= MAX_TIERS:
        raise SetupError(f"a cache has 2 to {MAX_TIERS} tiers, and not {len(addresses)}")
    if len(set(addresses)) < len(addresses):
        raise SetupError("a cache has a tier twice")
    for address in addresses:
        scheme = scheme_of(address)
        if scheme not in openers and scheme not in SCHEMES:
            known = ", ".join(f"{one}:" for one in (*SCHEMES, *openers))
            raise SetupError(f"no cache backend is called {scheme!r}: there are {known}")
        if scheme in openers:
            continue
        if scheme != "memory":
            parse_redis(address)
        elif value_bytes + ENTRY_OVERHEAD > settings.max_bytes:
            text = f"a cache of {settings.max_bytes} bytes cannot hold a value of {value_bytes}"
            raise SetupError(f"{text}: that takes {value_bytes + ENTRY_OVERHEAD} and its key")


def open_backend(
    where: str | Sequence[str],
    settings: BackendSettings = _DEFAULTS,
    *,
    clock: Clock = SYSTEM_CLOCK,
    openers: Mapping[str, Opener] = _NO_OPENERS,
) -> CacheBackend:
    """Open a backend, or several as tiers. Nothing is connected before it is first asked; see `CacheBackend.probe`.

    Args:
        where: The address of the backend, or of each tier, the uppermost first.
        settings: The rest.
        clock: What timeouts, and times to live in this process, are measured by.
        openers: Backends beside the built-in ones, by scheme.

    Raises:
        SetupError: See `check_backend`; or redis-py is needed, and not installed.
    """
    check_backend(where, settings, openers=openers)
    if isinstance(where, str):
        return (openers.get(scheme_of(where)) or _open)(where, settings, clock)
    tiers = [open_backend(address, settings, clock=clock, openers=openers) for address in where]
    return _tiered(tiers)


def _open(address: str, settings: BackendSettings, clock: Clock) -> CacheBackend:
    # Imported when needed: aiocache brings what it finds of its own backends, which takes time and memory.
    if scheme_of(address) == "memory":
        from mesh.caches.memory import MemoryBackend

        return MemoryBackend(
            max_bytes=settings.max_bytes,
            max_value_bytes=min(settings.max_value_bytes, settings.max_bytes),
            max_ttl_s=settings.max_ttl_s,
            clock=clock,
        )
    try:
        from mesh.caches.redis import RedisBackend
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise SetupError(
            f"a cache at {scheme_of(address)}: needs redis-py: pip install 'inference-mesh[redis]'"
        ) from error
    return RedisBackend(
        parse_redis(address),
        timeout_s=settings.timeout_s,
        max_value_bytes=settings.max_value_bytes,
        max_ttl_s=settings.max_ttl_s,
        clock=clock,
    )


def _tiered(tiers: Sequence[CacheBackend]) -> CacheBackend:
    from mesh.caches.tiers import TieredBackend

    return TieredBackend(tiers)
