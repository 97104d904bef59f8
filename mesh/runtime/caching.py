"""`WorkerCaches`: the caches of one worker, each opened once for all of its nodes, and what becomes of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from mesh.caches import BackendSettings, CacheBackend, CacheStats, KeySpec, Opener, open_backend
from mesh.context import SYSTEM_CLOCK, Clock, Context
from mesh.errors import InvalidInput, NotFound
from mesh.handler import Handler, Layer
from mesh.keeping import CacheAnswer, CacheCall, CacheUse
from mesh.layers import BoundCache, Cache, CacheSite
from mesh.runtime.keeping import NodeBackend
from mesh.topology.graph import MESH, Graph, GraphCache, GraphNode
from mesh.transports.statistics import CachedStatistics, CacheStatistics

__all__ = ["WorkerCaches", "cached_node", "caches_meant", "key_spec", "namespace_of", "summed"]

log = logging.getLogger("mesh.cache")

ReachNode = Callable[[str], Awaitable[Handler[Any]]]
"""Gives the handler of a cache node by its name, wherever it runs."""


def namespace_of(graph: Graph, node: GraphNode, version: str = "") -> str:
    """Where a node's answers are kept: what is forgotten together."""
    return f"{graph.name}/{node.name}@{version or node.release}"


class WorkerCaches:
    """The caches that the nodes of one worker use. A handler of `CacheCall` for them.

    Args:
        graph: The graph.
        worker: The worker's name.
        reach: Gives the handlers of cache nodes.
        clock: What time is measured by.
    """

    def __init__(self, graph: Graph, worker: str, reach: ReachNode, clock: Clock = SYSTEM_CLOCK) -> None:
        self._graph = graph
        self._holder = f"{worker} ({os.getpid()})"
        self._reach = reach
        self._clock = clock
        self._backends: dict[str, CacheBackend] = {}
        self._sites: dict[str, CacheSite] = {}
        self.stores: dict[str, Handler[Any]] = {}
        """The cache nodes that run in this worker."""

    def bound(self, node: GraphNode, settings: Cache) -> Layer:
        """A node's cache layer with its cache.

        Raises:
            SetupError: The cache cannot be opened.
        """
        cache = self._graph.cache(settings.cache)
        if cache.name not in self._backends:
            self._backends[cache.name] = self._opened(cache)
        site = CacheSite(
            keys=key_spec(node, cache),
            namespace=namespace_of(self._graph, node),
            gives=node.gives,
            expands=node.expands,
            backend=self._backends[cache.name],
        )
        self._sites[node.name] = site
        return BoundCache(settings, site)

    def _opened(self, cache: GraphCache) -> CacheBackend:
        settings = BackendSettings(
            max_bytes=cache.max_bytes, max_value_bytes=cache.max_value_bytes, timeout_s=cache.timeout_s
        )
        most = self._graph.limits.max_message_bytes

        def node(address: str, settings: BackendSettings, clock: Clock) -> CacheBackend:
            name = address.removeprefix(MESH)
            return NodeBackend(name, lambda: self._reach(name), settings, most, clock)

        openers: dict[str, Opener] = {"mesh": node}
        where = cache.where[0] if len(cache.where) == 1 else cache.where
        return open_backend(where, settings, clock=self._clock, openers=openers)

    async def probe(self) -> None:
        """Tell in the log of caches that cannot be reached now; their nodes go on without them.

        Cache nodes are left out: they may start after this worker.
        """
        for name, backend in self._backends.items():
            cache = self._graph.cache(name)
            if not cache.nodes and (why := await backend.probe()):
                where = f"{self._graph.file}:{cache.line}"
                log.warning("%s: cache %s cannot be used now; going on without it: %s", where, name, why)

    async def close(self) -> None:
        """End what computes in the background, and close the backends."""
        for site in self._sites.values():
            await site.close()
        for backend in self._backends.values():
            await backend.close()

    # Who asks.

    async def __call__(self, request: CacheCall, context: Context, /) -> CacheAnswer:
        """Delete, clear or tell of what this worker keeps.

        Raises:
            NotFound: There is no such cache, or no such node with a cache, in the graph.
            InvalidInput: Another verb.
            Unavailable: Nobody knows whether it is gone.
        """
        request.check()
        node = cached_node(self._graph, request.node) if request.node else None
        namespace = None if node is None else namespace_of(self._graph, node, request.version)
        names = caches_meant(self._graph, request, node)
        backends = {name: backend for name, backend in self._backends.items() if name in names}
        match request.verb:
            case "clear":
                return CacheAnswer(count=sum([await one.forget(namespace) for one in backends.values()]))
            case "delete" if namespace is not None:
                counts = [await one.delete_many(namespace, request.keys) for one in backends.values()]
                return CacheAnswer(count=sum(counts))
            case "stats":
                return CacheAnswer(use=summed([_use(await one.read_stats(namespace)) for one in backends.values()]))
            case "delete":
                raise InvalidInput("delete needs the node whose keys they are")
            case _:
                raise InvalidInput(f"{request.verb} is for cache nodes")

    # What is counted.

    def cached(self, row_s: Callable[[str], float]) -> tuple[CachedStatistics, ...]:
        """What became of the rows of each node with a cache.

        Args:
            row_s: By node, its mean seconds for a row.
        """
        return tuple(
            CachedStatistics(
                node=node,
                cache=self._graph.node(node).cache,
                hits=(counter := site.counter).hits,
                misses=counter.misses,
                coalesced=counter.coalesced,
                stale=counter.stale,
                negative=counter.negative,
                refreshes=counter.refreshes,
                broken=counter.broken,
                recomputed=counter.recomputed,
                saved_s=(counter.hits + counter.coalesced) * row_s(node),
            )
            for node, site in self._sites.items()
        )

    async def told(self) -> tuple[CacheStatistics, ...]:
        """How each cache does in this process, with each of its tiers, and the cache nodes that run here."""
        told: list[CacheStatistics] = []
        for name, backend in self._backends.items():
            stats = await backend.read_stats()
            beside = sum(site.counter.failures for site in self._sites.values() if site.backend is backend)
            use = _use(replace(stats, tiers=(), failures=stats.failures + beside))
            told.append(self._statistics(name, use))
            told += [self._statistics(name, _use(one), tier) for tier, one in enumerate(stats.tiers, start=1)]
        for name, store in self.stores.items():
            answer: Any = await store(CacheCall(verb="stats"), Context(clock=self._clock))  # type: ignore[arg-type]
            told.append(self._statistics(name, answer.use))
        return tuple(told)

    def _statistics(self, name: str, use: CacheUse, tier: int = 0) -> CacheStatistics:
        return CacheStatistics(
            cache=name,
            backend=use.backend,
            holder=self._holder,
            tier=tier,
            hits=use.hits,
            misses=use.misses,
            kept=use.kept,
            evictions=use.evictions,
            expirations=use.expirations,
            failures=use.failures,
            entries=use.entries,
            nbytes=use.nbytes,
            max_bytes=use.max_bytes,
        )


def key_spec(node: GraphNode, cache: GraphCache) -> KeySpec:
    """What a node's answers depend on, but for what its cache layer narrows it to."""
    return KeySpec(
        uses=node.uses,
        model_digest=node.digest.encode(),
        version=node.version,
        arguments=node.arguments,
        trust="shared" if cache.trust == "shared" else "private",
    )


def cached_node(graph: Graph, name: str) -> GraphNode:
    """The node with a cache of that name. Raises NotFound."""
    cached = {node.name: node for node in graph.nodes if node.cache}
    if name not in cached:
        raise NotFound(f"no node with a cache is called {name!r:.80} here; there is: {', '.join(cached) or 'none'}")
    return cached[name]


def caches_meant(graph: Graph, request: CacheCall, node: GraphNode | None) -> list[str]:
    """The caches that a call is about. Raises NotFound."""
    names = [cache.name for cache in graph.caches]
    if request.cache and request.cache not in names:
        raise NotFound(f"no cache is called {request.cache!r:.80} here; there is: {', '.join(names) or 'none'}")
    if node is not None and request.cache not in ("", node.cache):
        raise NotFound(f"node {node.name!r} has its answers in cache {node.cache!r}, and not in {request.cache!r:.80}")
    return [request.cache] if request.cache else names if node is None else [node.cache]


def summed(uses: Iterable[CacheUse]) -> CacheUse:
    """Several caches as one; what two say of the same place, which is not this process's memory, counts once."""
    every = list(uses)
    once = {one.backend: one for one in every if one.backend != "memory://"}
    held = [*once.values(), *(one for one in every if one.backend == "memory://")]

    def known(what: str) -> int | None:
        found = [value for one in held if (value := getattr(one, what)) is not None]
        return sum(found) if found else None

    return CacheUse(
        backend=", ".join(dict.fromkeys(one.backend for one in every if one.backend)),
        hits=sum(one.hits for one in every),
        misses=sum(one.misses for one in every),
        kept=sum(one.kept for one in every),
        evictions=sum(one.evictions for one in every),
        expirations=sum(one.expirations for one in every),
        failures=sum(one.failures for one in every),
        entries=known("entries"),
        nbytes=known("nbytes"),
        max_bytes=known("max_bytes"),
    )


def _use(stats: CacheStats) -> CacheUse:
    """What a backend tells, with what its tiers hold."""
    tiers = summed(map(_use, stats.tiers))
    return CacheUse(
        backend=stats.backend,
        hits=stats.hits,
        misses=stats.misses,
        kept=stats.kept,
        evictions=stats.evictions + tiers.evictions,
        expirations=stats.expirations + tiers.expirations,
        failures=stats.failures + stats.skipped + tiers.failures,
        entries=stats.entries if stats.tiers == () else tiers.entries,
        nbytes=stats.nbytes if stats.tiers == () else tiers.nbytes,
        max_bytes=stats.max_bytes if stats.tiers == () else tiers.max_bytes,
    )
