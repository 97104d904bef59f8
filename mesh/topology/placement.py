"""`Graph` and a placement to a `Plan`: who runs what, and in which pieces.

A placement says only which worker holds which node; any assignment is legal. The planner cuts each worker's nodes into
partitions, pieces that can each be called once. A partition has one exit: the node whose outputs leave it. A node is
with another in one partition if all that it gives goes to nodes of that partition, so every path that leaves a
partition leads through its exit, and partitions never form a cycle. An aggregate that need not wait for all of its
branches is a partition by itself, and each of its branches ends one: whoever waits for them sees each as it ends, and
can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.errors import PlacementError, Problem
from mesh.node import Cache
from mesh.topology.graph import Graph, GraphNode, edge_node
from mesh.topology.load import GATEWAY
from mesh.topology.source import Path, closest, did_you_mean, named, shown
from mesh.topology.spec import Topology, WorkerFile

__all__ = ["Partition", "Plan", "Worker", "check_placements", "plan_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """An operating system process, or several that do the same."""

    name: str
    nodes: tuple[str, ...]
    address: str | None = None
    """As the file has it; None for a unix socket of this host that the supervisor chooses."""
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A piece of one worker's nodes that is called as one."""

    worker: str
    nodes: tuple[str, ...]
    """Each after those that feed it; the last is the exit."""
    inputs: tuple[str, ...]
    """Edges that come from outside."""
    outputs: tuple[str, ...]
    """Edges of the exit that are needed outside."""
    rows_of: tuple[str, ...] = ()
    """Nodes outside whose rows are needed, though perhaps no edge of them is."""

    @property
    def exit(self) -> str:
        """The node whose outputs leave the partition."""
        return self.nodes[-1]

    @property
    def name(self) -> str:
        """What the partition is called by: `worker/exit`."""
        return f"{self.worker}/{self.exit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A graph and who runs what of it."""

    graph: Graph
    placement: str
    workers: tuple[Worker, ...]
    """The first is the gateway: it answers for the whole graph."""
    partitions: tuple[Partition, ...]
    """Each after those that feed it."""

    @property
    def gateway(self) -> Worker:
        """The worker that answers for the whole graph."""
        return self.workers[0]

    def worker(self, name: str) -> Worker:
        """The worker of that name.

        Raises:
            PlacementError: There is none.
        """
        for worker in self.workers:
            if worker.name == name:
                return worker
        known = did_you_mean(name, [worker.name for worker in self.workers])
        raise PlacementError(f"placement {self.placement!r} has no worker {name!r} ({known})")


def plan_of(graph: Graph, topology: Topology, placement: str) -> Plan:
    """Cut a graph into what each worker is asked for.

    Raises:
        PlacementError: There is no placement of that name.
    """
    names = tuple(node.name for node in graph.nodes)
    match placement:
        case "fused":
            workers = (Worker(name=GATEWAY, nodes=names),)
        case "processes":
            workers = (Worker(name=GATEWAY, nodes=()), *(Worker(name=name, nodes=(name,)) for name in names))
        case _ if placement in topology.placements:
            workers = tuple(
                Worker(name=name, nodes=tuple(part.nodes), address=part.address, replicas=part.replicas)
                for name, part in topology.placements[placement].items()
            )
        case _:
            known = did_you_mean(placement, ["fused", "processes", *topology.placements])
            raise PlacementError(f"{graph.file}: no placement is called {placement!r} ({known})")
    return Plan(graph=graph, placement=placement, workers=workers, partitions=_cut(graph, workers))


def _cut(graph: Graph, workers: tuple[Worker, ...]) -> tuple[Partition, ...]:
    home = {node: worker.name for worker in workers for node in worker.nodes}
    exits = _exits(graph, home)
    pieces: dict[str, list[GraphNode]] = {}
    for node in graph.nodes:
        if node.kind == Cache.kind:
            continue  # asked by the workers that keep things in it
        pieces.setdefault(exits[node.name], []).append(node)
    needed = set(graph.outputs.values())
    needed |= {edge for node in graph.nodes for edge in node.edges if exits.get(edge_node(edge)) != exits[node.name]}
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    partitions: list[Partition] = []
    for name in sorted(pieces, key=order.__getitem__):
        inside = {node.name for node in pieces[name]}
        edges = [edge for node in pieces[name] for edge in node.edges if edge_node(edge) not in inside]
        rows_of = [one.node for node in pieces[name] for one in node.rows_of if one.node not in inside]
        outputs = [f"{name}.{tensor}" for tensor in graph.node(name).gives if f"{name}.{tensor}" in needed]
        partitions.append(
            Partition(
                worker=home[name],
                nodes=tuple(node.name for node in pieces[name]),
                inputs=tuple(dict.fromkeys(edges)),
                outputs=tuple(outputs),
                rows_of=tuple(dict.fromkeys(rows_of)),
            )
        )
    return tuple(partitions)


def _exits(graph: Graph, home: Mapping[str, str]) -> dict[str, str]:
    """Node -> the exit of its partition."""
    takers: dict[str, list[GraphNode]] = {node.name: [] for node in graph.nodes}
    for node in graph.nodes:
        for feed in node.after:
            takers[feed].append(node)
    leaves = {edge_node(edge) for edge in graph.outputs.values()}
    exits: dict[str, str] = {}
    for node in reversed(graph.nodes):
        ahead = {exits[taker.name] for taker in takers[node.name]}
        alone = node.join is not None or any(taker.join is not None for taker in takers[node.name])
        first = next(iter(ahead), node.name)
        joins = len(ahead) == 1 and home[first] == home[node.name] and node.name not in leaves and not alone
        exits[node.name] = first if joins else node.name
    return exits


def check_placements(topology: Topology, problems: list[Problem]) -> None:
    """Every placement gives every node to exactly one worker, and no name and no address to two."""
    # A node that is there but wrong is not said to be missing.
    known = dict.fromkeys(topology.written("nodes"))
    unsure = {path[1] for path in topology.wrong if path[0] == "placements" and len(path) > 1}
    for placement, workers in topology.placements.items():
        check = _PlacementCheck(topology, placement, problems)
        if not topology.doubts("nodes"):
            check.nodes(workers, known, whole=placement not in unsure)
        check.names(workers)
        check.addresses(workers)


class _PlacementCheck:
    """One placement."""

    def __init__(self, topology: Topology, placement: str, problems: list[Problem]) -> None:
        self._topology = topology
        self._placement = placement
        self._problems = problems

    def _path(self, *steps: str | int) -> Path:
        return ("placements", self._placement, *steps)

    def _wrong(self, *steps: str | int, text: str, hint: str = "", at_key: bool = False) -> None:
        self._problems.append(self._topology.source.problem(self._path(*steps), text, hint, at_key=at_key))

    def nodes(self, workers: Mapping[str, WorkerFile], known: Mapping[str, None], *, whole: bool) -> None:
        """Each node is with one worker; of workers that were not understood it is not known what they have."""
        homes: dict[str, str] = {}
        meant: set[str | None] = set()
        for name, worker in workers.items():
            for index, node in enumerate(worker.nodes):
                if node in self._topology.inputs and node not in known:
                    text = f"{node!r} is an input of the graph: workers run nodes"
                    self._wrong(name, "nodes", index, text=text)
                elif node not in known:
                    meant.add(closest(node, known))
                    hint = self._topology.source.near(node, known)
                    self._wrong(name, "nodes", index, text=f"no node is called {shown(node)}", hint=hint)
                elif node in homes:
                    text = f"node {node!r} is with worker {shown(homes[node])} already"
                    self._wrong(name, "nodes", index, text=text)
                homes.setdefault(node, name)
            front, doubted = name == next(iter(workers)), self._topology.doubts(*self._path(name, "nodes"))
            if not worker.nodes and not front and not doubted:
                text = f"worker {shown(name)} has no nodes: only the first, the gateway, may be without"
                self._wrong(name, "nodes", text=text)
        missing = [repr(node) for node in self._topology.nodes if node not in homes and node not in meant]
        if missing and whole:
            text = f"placement {shown(self._placement)} gives no worker to {named(missing)}"
            self._wrong(text=text, hint="name each node under one worker", at_key=True)

    def names(self, workers: Mapping[str, WorkerFile]) -> None:
        """No worker is called as a replica of another will be."""
        replicas = {f"{name}-{index}": name for name, one in workers.items() for index in _replicas(one)}
        for name in workers:
            if name in replicas:
                text = f"{name!r} is what a replica of worker {replicas[name]!r} is called"
                self._wrong(name, text=text, hint="choose another name", at_key=True)

    def addresses(self, workers: Mapping[str, WorkerFile]) -> None:
        """No two processes listen at one address; the replicas of a worker take the ports that follow its own."""
        taken: dict[str, str] = {}
        for name, worker in workers.items():
            scheme, colon, port = (worker.address or "").rpartition(":")
            if worker.address is None:
                continue
            if scheme == "unix":
                wanted = [worker.address]
                if worker.replicas > 1:
                    text = "replicas of one host need a TCP address (they take the ports that follow), or none"
                    self._wrong(name, "replicas", text=text)
            elif int(port) == 0:
                wanted = []
                if name != next(iter(workers)):
                    text = "port 0 lets the operating system choose, so nobody would know where to call"
                    self._wrong(name, "address", text=text, hint="only the first worker, the gateway, may have it")
            else:
                ports = range(int(port), int(port) + worker.replicas)
                wanted = [f"{scheme.lower()}{colon}{one}" for one in ports]
                if ports[-1] > 65535:
                    text = f"{worker.replicas} replicas take ports {ports[0]} to {ports[-1]}, and the last one is 65535"
                    self._wrong(name, "address", text=text)
            clash = next((one for one in wanted if one in taken), None)
            if clash is not None:
                text = f"worker {taken[clash]!r} listens there already"
                replicas = " with one of its replicas" if clash != wanted[0] else ""
                self._wrong(name, "address", text=text, hint=f"at {clash}{replicas}")
            taken.update({one: name for one in wanted if one not in taken})


def _replicas(worker: WorkerFile) -> range:
    return range(worker.replicas if worker.replicas > 1 else 0)
