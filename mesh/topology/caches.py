"""`caches:` and the layers that use it: every name leads somewhere, every address is one, and what is kept fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any, cast

from mesh.caches import VALUE_OVERHEAD, BackendSettings, check_backend
from mesh.errors import Problem, SetupError
from mesh.node import Cache
from mesh.tensors import DATATYPES
from mesh.topology.graph import MESH, GraphCache, GraphNode
from mesh.topology.source import Path, did_you_mean, shown
from mesh.topology.spec import CacheFile, Topology

__all__ = ["check_caches", "nodes_named"]

_LAYER = "cache"


def nodes_named(section: object) -> set[str]:
    """The nodes that the caches of a file name as `mesh://node`, as it is written, right or wrong."""
    parts: Iterable[Any] = cast("dict[Any, Any]", section).values() if isinstance(section, dict) else ()
    found: list[Any] = []
    for part in parts:
        if isinstance(part, dict):
            inside = cast("dict[Any, Any]", part)
            tiers = inside.get("tiers")
            found += [inside.get("backend"), *(cast("list[Any]", tiers) if isinstance(tiers, list) else ())]
    return {one.removeprefix(MESH) for one in found if isinstance(one, str) and one.startswith(MESH)}


def check_caches(topology: Topology, nodes: Sequence[GraphNode], problems: list[Problem]) -> list[GraphCache]:
    """Look at the caches of a file and at the layers that name them; what is wrong is added to `problems`.

    Args:
        topology: What the file says.
        nodes: Its nodes, as far as they are typed.
        problems: Where mistakes are added.
    """
    return _CacheCheck(topology, nodes, problems).run()


class _CacheCheck:
    def __init__(self, topology: Topology, nodes: Sequence[GraphNode], problems: list[Problem]) -> None:
        self._topology = topology
        self._nodes = {node.name: node for node in nodes}
        self._problems = problems
        self._right: set[str] = set()
        """Caches whose addresses and bounds are right by themselves."""

    def run(self) -> list[GraphCache]:
        """The caches, those that are wrong left out."""
        for name, part in self._topology.caches.items():
            before = len(self._problems)
            self._cache(name, part)
            if len(self._problems) == before and not self._topology.doubts("caches", name):
                self._right.add(name)
        used = {name for node in self._topology.nodes for name in self._layers(node)}
        self._unused(used)
        self._stores()
        return [self._made(name) for name in self._topology.caches if name in self._right]

    def _wrong(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        self._problems.append(self._topology.source.problem(path, text, hint, at_key=at_key))

    # A cache by itself.

    def _cache(self, name: str, part: CacheFile) -> None:
        path: Path = ("caches", name)
        if name in self._topology.written("nodes"):
            self._wrong(path, f"{name!r} is the name of a node as well", at_key=True)
        unsure = any(self._topology.doubts(*path, key) for key in ("backend", "tiers"))
        if (part.backend is None) == (part.tiers is None) and not unsure:
            what = "both a backend and tiers" if part.tiers else "neither a backend nor tiers"
            self._wrong(path, f"cache {name!r} has {what}: it needs one of the two", at_key=True)
            return
        for where, address in _addresses(part):
            self._address((*path, *where), address, part)
        tiers = part.tiers or []
        for index, address in enumerate(tiers):
            if address in tiers[:index]:
                self._wrong((*path, "tiers", index), f"tier {shown(address)} comes twice")

    def _address(self, path: Path, address: str, part: CacheFile) -> None:
        if not address.startswith(MESH):
            try:
                check_backend(address, _settings(part), openers={"mesh": _never})
            except SetupError as error:
                self._wrong(path, str(error))
            return
        name = address.removeprefix(MESH)
        if name not in self._topology.written("nodes"):
            if not self._topology.doubts("nodes"):
                hint = self._topology.source.near(name, self._topology.nodes)
                self._wrong(path, f"{shown(address)} names no node", hint)
        elif name in self._nodes and self._nodes[name].kind != Cache.kind:
            self._wrong(path, f"node {name!r} is no cache", "as nodes.cache:MemoryCache is one")

    # The layers that name caches.

    def _layers(self, name: str) -> Iterator[str]:
        """Look at the cache layers of a node; gives the caches that they name."""
        layers = self._topology.nodes[name].layers
        first = True
        for index, entry in enumerate(layers):
            settings = entry.get(_LAYER)
            if not isinstance(settings, dict):
                continue
            path: Path = ("nodes", name, "layers", index, _LAYER)
            if not first:
                self._wrong(path, f"node {name!r} has a cache already", at_key=True)
            first = False
            yield from self._layer(name, cast("dict[str, Any]", settings), path)

    def _layer(self, name: str, settings: dict[str, Any], path: Path) -> Iterator[str]:
        cache, node = settings.get("in"), self._nodes.get(name)
        if isinstance(cache, str):
            yield cache
            if cache not in self._topology.written("caches") and not self._topology.doubts("caches"):
                hint = did_you_mean(cache, self._topology.caches) or "write caches: {hot: {backend: memory://}}"
                self._wrong((*path, "in"), f"no cache is called {shown(cache)}", hint)
        key = settings.get("key")
        inputs = self._topology.nodes[name].inputs
        if isinstance(key, list) and isinstance(inputs, dict) and not self._topology.doubts("nodes", name, "inputs"):
            for place, tensor in enumerate(cast("list[Any]", key)):
                if isinstance(tensor, str) and tensor not in inputs:
                    hint = did_you_mean(tensor, inputs)
                    self._wrong((*path, "key", place), f"node {name!r} has no input {shown(tensor)}", hint)
        if isinstance(cache, str) and cache in self._right and node is not None:
            part = self._topology.caches[cache]
            for _, address in _addresses(part):
                try:
                    check_backend(address, _settings(part), value_bytes=_least_bytes(node), openers={"mesh": _never})
                except SetupError as error:
                    self._wrong((*path, "in"), f"an answer of node {name!r} never fits: {error}")
                    break

    def _unused(self, used: set[str]) -> None:
        for name in self._topology.caches:
            if name not in used and not any(wrong[0] == "nodes" for wrong in self._topology.wrong):
                text = f"cache {name!r} is used by no node"
                self._wrong(("caches", name), text, "write layers: [cache: {in: ...}], or take it out", at_key=True)

    # Cache nodes.

    def _stores(self) -> None:
        named = nodes_named(self._topology.source.value.get("caches"))
        for name, node in self._nodes.items():
            if node.kind == Cache.kind and name not in named:
                # Else it would be told that it takes nothing, which is as it should be.
                missing = self._topology.source.problem(("nodes", name), "'inputs' is missing", at_key=True)
                self._problems[:] = [one for one in self._problems if one != missing]
                text = f"cache node {name!r} is used by no cache"
                self._wrong(("nodes", name), text, f"write caches: {{...: {{backend: {MESH}{name}}}}}", at_key=True)
        stores = {name for name, node in self._nodes.items() if node.kind == Cache.kind}
        for placement, workers in self._topology.placements.items():
            for worker, part in workers.items():
                if part.replicas > 1 and (found := stores.intersection(part.nodes)):
                    text = f"replicas of a worker with a cache node, {sorted(found)[0]!r}, would each keep their own"
                    self._wrong(("placements", placement, worker, "replicas"), text, "give it a worker of its own")

    def _made(self, name: str) -> GraphCache:
        part = self._topology.caches[name]
        return GraphCache(
            name=name,
            where=tuple(address for _, address in _addresses(part)),
            max_bytes=part.max_bytes,
            max_value_bytes=part.max_value,
            timeout_s=part.timeout,
            trust=part.trust,
            line=self._topology.source.problem(("caches", name), "", at_key=True).line,
        )


def _addresses(part: CacheFile) -> list[tuple[Path, str]]:
    if part.backend is not None:
        return [(("backend",), part.backend)]
    return [(("tiers", index), address) for index, address in enumerate(part.tiers or ())]


def _settings(part: CacheFile) -> BackendSettings:
    return BackendSettings(max_bytes=part.max_bytes, max_value_bytes=part.max_value, timeout_s=part.timeout)


def _never(*_: object) -> Any:
    raise AssertionError("a check opens nothing")


def _least_bytes(node: GraphNode) -> int:
    """What one row of a node's answer takes at least; what is not known takes nothing."""
    least = VALUE_OVERHEAD
    for spec in node.gives.values():
        sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
        if len(sizes) == len(spec.shape) - 1 and not node.expands:
            least += prod(sizes) * (DATATYPES[spec.datatype].itemsize or 4)
    return least
