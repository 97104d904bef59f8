"""What can be put around a node. A layer is a frozen settings object that can be called: handler to handler.

Every file here has the same shape: the settings, then the handler they make. No layer imports another.
"""

from collections.abc import Mapping

from mesh.layers.batch import Batch
from mesh.layers.breaker import Breaker
from mesh.layers.cache import BoundCache, Cache
from mesh.layers.cache_site import CacheCounter, CacheSite
from mesh.layers.hedge import Hedge
from mesh.layers.limit import Limit
from mesh.layers.queue import Queue
from mesh.layers.retry import Retry
from mesh.layers.timeout import Timeout

__all__ = [
    "LAYERS",
    "OF_CALLERS",
    "AnyLayer",
    "Batch",
    "BoundCache",
    "Breaker",
    "Cache",
    "CacheCounter",
    "CacheSite",
    "Hedge",
    "Limit",
    "Queue",
    "Retry",
    "Timeout",
]

AnyLayer = Batch | Breaker | Cache | Hedge | Limit | Queue | Retry | Timeout
"""One of the layers that a topology file knows."""

LAYERS: Mapping[str, type[AnyLayer]] = {
    "batch": Batch,
    "breaker": Breaker,
    "cache": Cache,
    "hedge": Hedge,
    "limit": Limit,
    "queue": Queue,
    "retry": Retry,
    "timeout": Timeout,
}
"""Name in a topology file -> layer."""

OF_CALLERS = frozenset(("breaker", "hedge", "retry", "timeout"))
"""Layers that belong to who calls the node, where that is another process: only there a link that breaks is seen, and
only there is a second attempt free to go to another replica."""
