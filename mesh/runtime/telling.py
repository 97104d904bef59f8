"""`Telling`: a worker's answer to who asks for statistics; at a gateway, that of the whole mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mesh.errors import RequestError
from mesh.runtime.caching import WorkerCaches
from mesh.runtime.statistics import CallCounter, WorkerCounters
from mesh.topology.placement import Partition, Plan
from mesh.transports import Link
from mesh.transports.statistics import GraphStatistics, MissingWorker, NodeStatistics, Statistics, together

__all__ = ["Telling"]

ASK_TIMEOUT_S = 1.0
"""How long a gateway waits for what its workers have counted; all are asked at once."""


class Telling:
    """Tells what a worker has counted.

    Args:
        plan: The whole plan.
        counters: What this process counts.
        links: By worker, a link to each of its replicas. Empty where this is no gateway.
        gateway: Whether this is one.
        caches: The caches of this process.
    """

    def __init__(
        self,
        plan: Plan,
        counters: WorkerCounters,
        links: Mapping[str, Sequence[Link]],
        *,
        gateway: bool,
        caches: WorkerCaches | None = None,
    ) -> None:
        self._plan = plan
        self._counters = counters
        self._links = links
        self._caches = caches
        self._gateway = gateway
        self._order = {node.name: index for index, node in enumerate(plan.graph.nodes)}
        self._asking: asyncio.Task[Statistics] | None = None

    async def __call__(self, own: bool) -> Statistics:
        """What this process has counted, and, unless only its `own` is wanted, what those have that it asks."""
        if own or not self._gateway:
            return await self._own()
        # However many ask at once, the workers are asked once.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._everybody())
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Ask nobody any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def _own(self) -> Statistics:
        told = self._counters.told(self._plan.graph.name if self._gateway else "")
        if self._caches is None:
            return told
        cached = self._caches.cached(lambda node: self._counters.node(node).row_s)
        return replace(told, cached=cached, caches=await self._caches.told())

    async def _everybody(self) -> Statistics:
        asked = [
            self._ask(worker, replica, link)
            for worker, links in self._links.items()
            for replica, link in enumerate(links)
        ]
        others = together(await asyncio.gather(*asked))
        wire_s = self._wire_s(others)
        told = together([await self._own(), replace(others, nodes=tuple(map(self._once, others.nodes)))])
        nodes = [replace(node, wire_s=wire_s.get(node.node, 0.0)) for node in told.nodes]
        place = self._place
        return replace(
            told,
            nodes=tuple(sorted(nodes, key=lambda node: place(node.node))),
            branches=tuple(sorted(told.branches, key=lambda one: place(one.node))),
            arms=tuple(sorted(told.arms, key=lambda one: (one.split, place(one.node)))),
            cached=tuple(sorted(told.cached, key=lambda one: place(one.node))),
            caches=tuple(sorted(told.caches, key=lambda one: (one.cache, one.holder, one.tier))),
        )

    def _once(self, node: NodeStatistics) -> NodeStatistics:
        """What workers have counted at a node, less what is counted here: requests, where some of its layers are here.

        Its worker has the attempts that those layers made of them.
        """
        counter = self._counters.nodes.get(node.node)
        if counter is None or counter.link is None:
            return node
        return replace(node, requests=0, rows=0, in_flight=0, errors={}, elapsed_s=0.0)

    def _place(self, node: str) -> int:
        """Where a node stands in the topology; what is not there, which a worker of another graph may tell, is last."""
        return self._order.get(node, len(self._order))

    async def _ask(self, worker: str, replica: int, link: Link) -> Statistics:
        try:
            return await link.stats(ASK_TIMEOUT_S, own=True)
        except RequestError as error:
            return Statistics(missing=(MissingWorker(worker, replica, error),))

    def _wire_s(self, told: Statistics) -> dict[str, float]:
        """By node, at the first one of each part that is called over a link: the time between the two."""
        served: dict[str, NodeStatistics | GraphStatistics] = {
            **{node.node: node for node in told.nodes},
            **{graph.graph: graph for graph in told.graphs},
        }
        found: dict[str, float] = {}
        for part in self._linked():
            called = self._counters.link(part.name)
            first, *others = part.nodes
            answered = served.get(part.name if others else first)
            if answered is not None:
                found[first] = _between(called, answered)
        return found

    def _linked(self) -> Iterable[Partition]:
        return (part for part in self._plan.partitions if part.name in self._counters.links)


def _between(called: CallCounter, answered: NodeStatistics | GraphStatistics) -> float:
    """What calls took at one end and not at the other.

    By the mean of each: one of the two may have been started again, or have other callers.
    """
    if not called.answered or answered.answered <= 0:
        return 0.0
    mean_s = called.elapsed_s / called.answered - answered.elapsed_s / answered.answered
    return max(0.0, mean_s) * called.answered
