"""What makes an aiocache backend of a backend of ours: `aiocache.cached`, plugins and serializers work on it.

Values are `bytes`; anything else needs a serializer that makes bytes or text of it. Pickle is aiocache's, and nothing
here uses it: who can write to a shared cache could run code. Timeouts are the backend's own. Not offered, as aiocache
allows: `add`, `increment`, `expire`, `raw` and the locks that are built on them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

from aiocache.base import BaseCache

from mesh.caches.backend import CacheStats, Entry, Found

__all__ = ["AiocacheFace", "AiocacheOptions"]

_NO_NAMESPACE = "aiocache"
"""Where what was put without a namespace lies."""


class AiocacheOptions(TypedDict, total=False):
    """What every aiocache backend takes; see `aiocache.base.BaseCache`."""

    serializer: Any
    plugins: Any
    namespace: str | None
    key_builder: Callable[..., Any] | None
    ttl: float | None


class Name(NamedTuple):
    """A key and its namespace, kept apart: aiocache puts them together to one text, where "a", "bc" is "ab", "c"."""

    namespace: str
    key: bytes


class RawSerializer:
    """Bytes as they are. (aiocache's own are typed for text, and its `NullSerializer` makes backends decode.)"""

    encoding = None

    def dumps(self, value: Any) -> bytes:
        """The same bytes.

        Raises:
            TypeError: It is none.
        """
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"a {type(value).__name__} is no bytes: give the cache a serializer")
        return bytes(value)

    def loads(self, value: Any) -> Any:
        """The same bytes."""
        return value


class AiocacheFace(BaseCache):  # type: ignore[misc]  # untyped
    """aiocache's methods on top of those of `mesh.caches.CacheBackend`."""

    def __init__(self, **options: Unpack[AiocacheOptions]) -> None:
        options.setdefault("serializer", RawSerializer())
        super().__init__(timeout=0, **options)

    @abstractmethod
    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        """See `CacheBackend`."""

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        """See `CacheBackend`. Nothing is, unless a backend says otherwise."""
        return None

    @abstractmethod
    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        """See `CacheBackend`."""

    @abstractmethod
    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        """See `CacheBackend`."""

    @abstractmethod
    async def forget(self, namespace: str | None = None) -> int:
        """See `CacheBackend`."""

    @abstractmethod
    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        """See `CacheBackend`."""

    # ===== aiocache.base.BaseCache =====

    def _build_key(self, key: Any, namespace: str | None = None) -> Name:
        namespace = self.namespace if namespace is None else namespace
        return Name(namespace or _NO_NAMESPACE, _as_bytes(getattr(key, "value", key)))

    async def _get(self, key: Any, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        return (await self._multi_get([key], encoding))[0]

    async def _gets(self, key: Any, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        return await self._get(key, encoding)

    async def _multi_get(self, keys: Sequence[Any], encoding: str | None = "utf-8", _conn: Any = None) -> list[Any]:
        names = [_as_name(key) for key in keys]
        found: dict[Name, bytes | None] = {}
        for namespace in dict.fromkeys(name.namespace for name in names):
            wanted = [name for name in names if name.namespace == namespace]
            values = (await self.get_many(namespace, [name.key for name in wanted])).values
            found.update(zip(wanted, values, strict=True))
        ordered = [found[name] for name in names]
        return ordered if encoding is None else [value and value.decode(encoding) for value in ordered]

    async def _set(
        self, key: Any, value: Any, ttl: float | None = None, _cas_token: Any = None, _conn: Any = None
    ) -> bool:
        if _cas_token is not None:
            raise NotImplementedError("this cache offers no optimistic lock")
        return await self._multi_set([(key, value)], ttl)

    async def _multi_set(self, pairs: Sequence[tuple[Any, Any]], ttl: float | None = None, _conn: Any = None) -> bool:
        kept = 0
        for key, value in pairs:
            name = _as_name(key)
            kept += await self.put_many(name.namespace, [Entry(name.key, _as_bytes(value), ttl or None)])
        return kept == len(pairs)

    async def _delete(self, key: Any, _conn: Any = None) -> int:
        name = _as_name(key)
        return await self.delete_many(name.namespace, [name.key])

    async def _exists(self, key: Any, _conn: Any = None) -> bool:
        return await self._get(key, None) is not None

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        await self.forget(self.namespace if namespace is None else namespace)
        return True


def _as_name(key: Any) -> Name:
    """What `_build_key` made, or what somebody's own key builder did."""
    return key if isinstance(key, Name) else Name(_NO_NAMESPACE, _as_bytes(key))


def _as_bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value).encode()
