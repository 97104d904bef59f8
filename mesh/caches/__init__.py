"""Caches: keys, values and the backends that hold them. Knows no node, no layer and no transport.

Keys are digests of everything that a row's answer depends on; values say themselves whether they are whole; backends
are bounded, and one that fails is one that misses. The backends themselves (`mesh.caches.memory`, `mesh.caches.redis`,
`mesh.caches.tiers`) are aiocache backends, and imported when one is opened.
"""

from mesh.caches.addresses import SCHEMES
from mesh.caches.assembly import fits, put_together
from mesh.caches.backend import CacheBackend, CacheStats, Entry, Found
from mesh.caches.keys import KeySpec, RowKeys, Trust, digest_rows
from mesh.caches.opening import BackendSettings, Opener, check_backend, open_backend
from mesh.caches.values import VALUE_OVERHEAD, Hits, encode_error, encode_rows, read_answer, read_rows

__all__ = [
    "SCHEMES",
    "VALUE_OVERHEAD",
    "BackendSettings",
    "CacheBackend",
    "CacheStats",
    "Entry",
    "Found",
    "Hits",
    "KeySpec",
    "Opener",
    "RowKeys",
    "Trust",
    "check_backend",
    "digest_rows",
    "encode_error",
    "encode_rows",
    "fits",
    "open_backend",
    "put_together",
    "read_answer",
    "read_rows",
]
