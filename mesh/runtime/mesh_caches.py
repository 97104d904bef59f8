"""`MeshCaches`: the gateway's answer to who asks for the caches of the whole mesh, and to who fills them ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mesh.context import Context
from mesh.errors import Unavailable
from mesh.handler import Handler
from mesh.keeping import CacheAnswer, CacheCall
from mesh.runtime.caching import WorkerCaches, cached_node, summed
from mesh.topology.graph import GraphNode
from mesh.topology.jobs import JOB_WORKER
from mesh.topology.placement import Plan
from mesh.transports import Link
from mesh.transports.contract import CACHE, CACHES

__all__ = ["MeshCaches"]


class MeshCaches:
    """A handler of `CacheCall` for every cache of a mesh.

    Args:
        plan: The whole plan.
        own: The caches of this process.
        nodes: The nodes that run in it.
        links: By worker, a link to each of its replicas.
    """

    def __init__(
        self,
        plan: Plan,
        own: WorkerCaches,
        nodes: Mapping[str, Handler[Any]],
        links: Mapping[str, Sequence[Link]],
    ) -> None:
        self._plan = plan
        self._own = own
        self._nodes = nodes
        self._links = links

    async def __call__(self, request: CacheCall, context: Context, /) -> CacheAnswer:
        """Delete, clear and tell everywhere; or run a node, for its answers to be there.

        Raises:
            NotFound: There is no such cache, or no such node with a cache.
            Unavailable: A worker could not be asked: nobody knows whether everything is gone, or there.
            RequestError: What the node raised for what it was to be run on.
        """
        if request.verb == "prefetch":
            return await self._prefetch(cached_node(self._plan.graph, request.node), request, context)
        found = [await self._own(request, context)]
        if not request.own:
            found += await asyncio.gather(*(self._ask(link, request, context) for link in self._asked()))
        return CacheAnswer(count=sum(one.count for one in found), use=summed(one.use for one in found))

    def _asked(self) -> list[Link]:
        """The workers with nodes that have a cache."""
        cached = {node.name for node in self._plan.graph.nodes if node.cache}
        workers = [worker.name for worker in self._plan.workers if cached.intersection(worker.nodes)]
        if cached.intersection(self._plan.gateway.nodes):
            workers.append(JOB_WORKER)
        return [link for name in workers for link in self._links.get(name, ())]

    async def _ask(self, link: Link, request: CacheCall, context: Context) -> CacheAnswer:
        handler: Any = link.handler(CACHE, CACHES)
        try:
            return await handler(replace(request, own=True), context)
        except Unavailable as error:
            raise Unavailable(f"a worker could not be asked: {error.text}") from None

    async def _prefetch(self, node: GraphNode, request: CacheCall, context: Context) -> CacheAnswer:
        """Run a node for nothing but its cache; each of its replicas, which may have each their own."""
        if node.name in self._nodes:
            await self._nodes[node.name](request.inputs, context)
            for link in self._links.get(JOB_WORKER, ()):
                # Whoever works on jobs runs the same nodes as the gateway, each with caches of its own.
                await link.handler(node.kind, node.name)(request.inputs, context)
            return CacheAnswer(count=request.inputs.rows)
        home = next(worker.name for worker in self._plan.workers if node.name in worker.nodes)
        for link in self._links[home]:
            await link.handler(node.kind, node.name)(request.inputs, context)
        return CacheAnswer(count=request.inputs.rows)
