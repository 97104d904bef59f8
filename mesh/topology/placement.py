"""`Graph` and a placement to a `Plan`: who runs what, and in which pieces.

A placement says only which worker holds which node; any assignment is legal. The planner cuts each worker's nodes into
partitions, pieces that can each be called once: the phase of a node is the number of changes of worker on the longest
path that leads to it, and a partition is (worker, phase). An edge inside a partition stays in one process; every other
edge leads to a later phase; so partitions never form a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.errors import PlacementError, Problem
from mesh.topology.graph import Graph, edge_node
from mesh.topology.load import GATEWAY
from mesh.topology.source import did_you_mean
from mesh.topology.spec import Topology

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
    phase: int
    nodes: tuple[str, ...]
    """Each after those that feed it."""
    inputs: tuple[str, ...]
    """Edges that come from outside."""
    outputs: tuple[str, ...]
    """Edges that are needed outside."""

    @property
    def name(self) -> str:
        """What the partition is called by: `worker/phase`."""
        return f"{self.worker}/{self.phase}"


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
    phases: dict[str, int] = {}
    pieces: dict[tuple[int, str], list[str]] = {}
    for node in graph.nodes:
        phase = max((phases[feed] + (home[feed] != home[node.name]) for feed in node.after), default=0)
        phases[node.name] = phase
        pieces.setdefault((phase, home[node.name]), []).append(node.name)
    piece_of = {name: piece for piece, names in pieces.items() for name in names}
    inputs: dict[tuple[int, str], dict[str, None]] = {piece: {} for piece in pieces}
    outputs: dict[tuple[int, str], dict[str, None]] = {piece: {} for piece in pieces}
    needed = [(edge, None) for edge in graph.outputs.values()]
    needed += [(edge, piece_of[node.name]) for node in graph.nodes for edge in node.edges]
    for edge, taker in needed:
        giver = piece_of.get(edge_node(edge))
        if giver == taker:
            continue
        if taker is not None:
            inputs[taker][edge] = None
        if giver is not None:
            outputs[giver][edge] = None
    return tuple(
        Partition(
            worker=piece[1],
            phase=piece[0],
            nodes=tuple(pieces[piece]),
            inputs=tuple(inputs[piece]),
            outputs=tuple(outputs[piece]),
        )
        for piece in sorted(pieces, key=lambda piece: piece[0])
    )


def check_placements(topology: Topology, problems: list[Problem]) -> None:
    """Every placement gives every node to exactly one worker, and no address to two."""
    source = topology.source
    known = set(topology.nodes) | topology.broken
    for placement, workers in topology.placements.items():
        homes: dict[str, str] = {}
        addresses: dict[str, str] = {}
        for name, worker in workers.items():
            path = ("placements", placement, name)
            for index, node in enumerate(worker.nodes):
                place = (*path, "nodes", index)
                if node not in known or node in topology.inputs:
                    problems.append(
                        source.problem(place, f"no node is called {node!r}", did_you_mean(node, topology.nodes))
                    )
                elif node in homes:
                    problems.append(source.problem(place, f"node {node!r} is with worker {homes[node]!r} already"))
                homes.setdefault(node, name)
            if worker.address in addresses:
                text = f"worker {addresses[worker.address]!r} listens there already"
                problems.append(source.problem((*path, "address"), text))
            if worker.address is not None:
                addresses.setdefault(worker.address, name)
            if worker.address is not None and worker.replicas > 1 and worker.address.startswith("unix:"):
                text = "replicas of one host need a TCP address (they take the ports that follow), or none"
                problems.append(source.problem((*path, "replicas"), text))
        missing = [node for node in topology.nodes if node not in homes]
        if missing:
            text = f"placement {placement!r} gives no worker to {', '.join(map(repr, missing))}"
            problems.append(source.problem(("placements", placement), text, at_key=True))
