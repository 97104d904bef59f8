"""`Worker`: one process's share of a plan, loaded, wired and listening."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from mesh.errors import PlacementError
from mesh.handler import Handler, Layer, stack
from mesh.runtime.balance import balanced
from mesh.runtime.build import build_node, layers_of, of_caller
from mesh.runtime.caching import WorkerCaches
from mesh.runtime.executor import Executor, Piece
from mesh.runtime.making import StepMaking, piece_step, rows_named
from mesh.runtime.mesh_caches import MeshCaches
from mesh.runtime.shadowing import Shadow
from mesh.runtime.statistics import CountedGraph, WorkerCounters
from mesh.runtime.steps import Step
from mesh.runtime.telling import Telling
from mesh.tensors import Tensors
from mesh.topology.graph import Graph, GraphNode
from mesh.topology.placement import Partition, Plan
from mesh.transports import Endpoint, Limits, Link, Listener, Service, Transport
from mesh.transports.contract import CACHE, CACHES, GRAPH, Description, NodeDescription

__all__ = ["Transports", "Worker", "describe", "limits_of"]

Transports = Mapping[str, Transport]
"""Scheme of an address -> the transport that takes it."""
DRAIN_GRACE_S = 10.0


def limits_of(graph: Graph) -> Limits:
    """The bounds of a graph as a transport takes them."""
    return Limits(
        max_message_bytes=graph.limits.max_message_bytes,
        max_in_flight=graph.limits.max_in_flight,
        default_timeout_s=graph.limits.default_timeout_s,
    )


class Worker:
    """An async context manager: entering loads the nodes, dials the other workers and listens; leaving drains and
    unloads.

    Args:
        plan: The whole plan.
        name: Which of its workers this is.
        listen: Addresses to listen at.
        dial: Worker -> the addresses of its replicas. The gateway dials all, those who work on jobs (`JOB_WORKER`)
            as well; others only those with a cache node that they keep things in, when they first do.
        transports: By scheme.
        services: gRPC services that it answers for beside its nodes, wherever it listens.
        called: What it tells others that it is called, where that is not `name`.
        grace_s: Most seconds that calls in flight are given when leaving.
    """

    def __init__(
        self,
        plan: Plan,
        name: str,
        *,
        listen: Sequence[str],
        dial: Mapping[str, Sequence[str]],
        transports: Transports,
        services: Sequence[Service] = (),
        called: str = "",
        grace_s: float = DRAIN_GRACE_S,
    ) -> None:
        self._plan = plan
        self._graph = plan.graph
        self._worker = plan.worker(name)
        self._listen = listen
        self._dial = dial
        self._transports = transports
        self._services = services
        self._grace_s = grace_s
        self._limits = limits_of(plan.graph)
        self._counters = WorkerCounters(called or name)
        self._steps = StepMaking(plan.graph, self._counters)
        self._links: dict[str, list[Link]] = {}
        self._caches = WorkerCaches(plan.graph, name, self._reach)
        self._lifetime = AsyncExitStack()
        self._nodes: dict[str, Handler[Any]] = {}
        self.listeners: list[Listener] = []
        """Where it listens, once entered."""
        self.root: Executor | None = None
        """The whole graph as a handler, in the gateway once entered."""
        self.counted: CountedGraph | None = None
        """The same, with each call counted."""

    async def __aenter__(self) -> Self:
        """Load, dial, listen.

        Raises:
            SetupError: A node cannot be loaded, or an address cannot be bound.
        """
        try:
            await self._build()
        except BaseException:
            await self._lifetime.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Drain, hang up, unload, in that order."""
        await self._lifetime.aclose()

    async def _build(self) -> None:
        alone = self._called_alone()
        for name in self._worker.nodes:
            node = self._graph.node(name)
            # A cache node takes no rows: its worker's caches tell of it.
            counter = None if node.kind == CACHE else self._counters.node(name)
            layers = node.layers[of_caller(node.layers) :] if name in alone else node.layers
            self._nodes[name] = await build_node(
                self._graph, node, self._worker.name, self._lifetime, counter, layers, self._caches.bound
            )
            if node.kind == CACHE:
                self._caches.stores[name] = self._nodes[name]
        self._lifetime.push_async_callback(self._caches.close)
        await self._caches.probe()
        endpoints = [self._node_endpoint(self._graph.node(name)) for name in self._worker.nodes]
        endpoints += [
            Endpoint(kind=GRAPH, name=partition.name, handler=self._piece(partition))
            for partition in self._plan.partitions
            if partition.worker == self._worker.name and len(partition.nodes) > 1
        ]
        gateway = self._worker.name == self._plan.gateway.name
        if gateway:
            self.root = await self._root()
            self.counted = CountedGraph(self.root, self._counters.graph(self._graph.name))
            description, handler = describe(self._plan), self.counted
            endpoints.append(
                Endpoint(kind=GRAPH, name=self._graph.name, handler=handler, description=description, front=True)
            )
        if self._graph.caches:
            endpoints.append(Endpoint(kind=CACHE, name=CACHES, handler=self._control(gateway), front=True))
        tell = Telling(self._plan, self._counters, self._links, gateway=gateway, caches=self._caches)
        self._lifetime.push_async_callback(tell.close)
        # Before the first: when the second cannot listen, the first must not stay open.
        self._lifetime.push_async_callback(self._drain)
        for address in self._listen:
            listener = await self._transport(address).listen(address, endpoints, self._limits, tell, self._services)
            self.listeners.append(listener)

    def _called_alone(self) -> set[str]:
        """Nodes here that another process calls one by one: some of their layers are with the caller."""
        if self._worker.name == self._plan.gateway.name:
            return set()
        return {part.exit for part in self._plan.partitions if len(part.nodes) == 1}

    async def _drain(self) -> None:
        await asyncio.gather(*(listener.drain(self._grace_s) for listener in self.listeners))

    def _transport(self, address: str) -> Transport:
        transport = self._transports.get(address.partition(":")[0])
        if transport is None:
            known = ", ".join(self._transports)
            raise PlacementError(f"worker {self._worker.name}: nothing here takes the address {address!r} ({known})")
        return transport

    def _node_endpoint(self, node: GraphNode) -> Endpoint:
        return Endpoint(kind=node.kind, name=node.name, handler=self._nodes[node.name])

    def _piece(self, partition: Partition) -> Handler[Tensors]:
        steps = [self._steps.of(self._graph.node(name), self._nodes[name]) for name in partition.nodes]
        specs = self._graph.edge_specs
        piece = Piece(steps, {edge: rows_named(edge, specs[edge]) for edge in partition.inputs}, partition.outputs)
        return CountedGraph(piece, self._counters.graph(partition.name))

    async def _root(self) -> Executor:
        """The whole graph: own nodes by their handlers, other workers' pieces by links."""
        steps: list[Step] = []
        shadows: list[Shadow] = []
        links = self._links
        for partition in self._plan.partitions:
            here = partition.worker == self._worker.name
            if not here and partition.worker not in links:
                links[partition.worker] = await self._dial_all(partition.worker)
            exit_ = self._graph.node(partition.exit)
            if exit_.shadows:
                handler = self._nodes[exit_.name] if here else self._dialled(partition)
                shadows.append(self._steps.shadow(exit_, handler))
            elif here:
                steps += [self._steps.of(self._graph.node(name), self._nodes[name]) for name in partition.nodes]
            else:
                steps.append(self._remote(partition))
        for worker in self._dial:
            # Such as hold nothing but a cache node, or work on jobs: asked for what they have counted, and to forget.
            if worker not in links and worker != self._worker.name:
                links[worker] = await self._dial_all(worker)
        self._counters.shadows = tuple(shadows)
        for shadow in shadows:
            self._lifetime.push_async_callback(shadow.close)
        graph = self._graph
        return Executor(steps, graph.inputs, graph.outputs, branches=self._steps.branches, shadows=shadows)

    async def _dial_all(self, worker: str) -> list[Link]:
        links: list[Link] = []
        for address in self._dial[worker]:
            link = await self._transport(address).dial(address, self._limits)
            self._lifetime.push_async_callback(link.close)
            links.append(link)
        return links

    async def _reach(self, node: str) -> Handler[Any]:
        """A cache node, here or wherever it runs: dialled when something is first kept in it."""
        if node in self._nodes:
            return self._nodes[node]
        home = next(worker.name for worker in self._plan.workers if node in worker.nodes)
        if home not in self._links:
            # No other call comes in between: dialling does not wait.
            self._links[home] = await self._dial_all(home)
        return self._links[home][0].handler(CACHE, node)

    def _control(self, gateway: bool) -> Handler[Any]:
        """Who answers for caches: those of this worker, at the gateway those of the mesh."""
        made: Any = MeshCaches(self._plan, self._caches, self._nodes, self._links) if gateway else self._caches
        return made

    def _remote(self, partition: Partition) -> Step:
        handler = self._dialled(partition)
        if len(partition.nodes) == 1:
            return self._steps.of(self._graph.node(partition.exit), handler)
        return piece_step(partition, handler)

    def _dialled(self, partition: Partition) -> Handler[Any]:
        kind, name = GRAPH, partition.name
        layers: list[Layer] = []
        if len(partition.nodes) == 1:
            # A single node is called through its own typed service, as any other caller would.
            node = self._graph.node(partition.exit)
            kind, name = node.kind, node.name
            layers = layers_of(node.layers[: of_caller(node.layers)])
        replicas = [link.handler(kind, name) for link in self._links[partition.worker]]
        link = self._counters.link(partition.name)
        handler = link.around(balanced(replicas))
        if not layers:
            return handler
        counter = self._counters.node(name)
        counter.layered, counter.link = True, link
        return counter.calls.around(stack(handler, *layers))


def describe(plan: Plan) -> Description:
    """A plan as Describe tells it."""
    graph = plan.graph
    home = {node: worker.name for worker in plan.workers for node in worker.nodes}
    specs = graph.edge_specs
    return Description(
        graph=graph.name,
        digest=graph.digest,
        inputs=graph.inputs,
        outputs=graph.output_specs,
        nodes=[
            NodeDescription(
                name=node.name,
                kind=node.kind,
                uses=node.uses,
                worker=home[node.name],
                inputs=node.takes or {edge: specs[edge] for edge in node.edges},
                outputs=node.gives,
                after=node.after,
            )
            for node in graph.nodes
        ],
    )
