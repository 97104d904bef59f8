"""A node of a plan to a live handler: built, loaded, checked, wrapped in its layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import CoroutineType
from typing import Any

from mesh.context import Context, NodeTiming
from mesh.errors import NodeFailed, RequestError, SetupError
from mesh.handler import Branches, Handler, Layer, stack
from mesh.layers import LAYERS, OF_CALLERS, Cache
from mesh.node import KINDS, Aggregate, Node
from mesh.node import Cache as CacheNode
from mesh.partial import Partial
from mesh.runtime.keeping import keeping
from mesh.runtime.statistics import NodeCounter
from mesh.signature import Fit, InputCheck
from mesh.tensors import Array, Tensors
from mesh.topology.declared import joined
from mesh.topology.graph import Graph, GraphNode, LayerSettings
from mesh.topology.resolve import arguments_of, construct, import_class

__all__ = ["Bind", "build_node", "layers_of", "of_caller"]

Bind = Callable[[GraphNode, Cache], Layer]
"""Gives a node's cache layer its cache."""


async def build_node(
    graph: Graph,
    spec: GraphNode,
    worker: str,
    lifetime: AsyncExitStack,
    counter: NodeCounter | None = None,
    layers: Sequence[LayerSettings] | None = None,
    bind: Bind | None = None,
) -> Handler[Any]:
    """Build, load and wrap one node.

    Args:
        graph: Its graph.
        spec: The node.
        worker: Who runs it.
        lifetime: Unloads it.
        counter: Told of what it is asked.
        layers: What wraps it here, outermost first; all of its layers if not said.
        bind: Gives it its cache, where it has one.

    Raises:
        SetupError: The node cannot be built or loaded here, or its model is not the one that was checked.
    """
    found = import_class(spec.uses)
    arguments, wrong = arguments_of(found, spec.arguments, Path(graph.model_root))
    if wrong:
        raise SetupError(f"node {spec.name}: {wrong[0].text}")
    node = construct(found, arguments)
    if node.digest() != spec.digest:
        raise SetupError(f"node {spec.name}: its model file is not the one that was checked")
    if isinstance(node, Aggregate):
        # Told again what it joins: a default has to have a type also where no branch answers.
        joined(node, {branch: graph.node(branch).gives for branch in spec.branches})
    try:
        await lifetime.enter_async_context(node)
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"node {spec.name} cannot be loaded: {type(error).__name__}: {error}") from error
    if isinstance(node, CacheNode):
        return keeping(node, spec.name, graph.limits.max_message_bytes)
    counter = counter or NodeCounter()
    layers = spec.layers if layers is None else layers
    counter.layered = bool(layers)
    handler = _checked(node, spec, worker, counter)
    if spec.kind != "aggregate":
        handler = _observed(
            stack(handler, *_bound(layers_of(layers), spec, bind)), spec, worker, layered=counter.layered
        )
    return counter.calls.around(handler)


def of_caller(layers: Sequence[LayerSettings]) -> int:
    """How many of a node's layers, from the outermost, stand at its caller's end where that is another process."""
    return next((index for index, layer in enumerate(layers) if layer.name not in OF_CALLERS), len(layers))


def layers_of(settings: Sequence[LayerSettings]) -> list[Layer]:
    """The layers that a node's settings stand for, outermost first."""
    return [LAYERS[one.name].model_validate(one.settings, context={"from_file": True}) for one in settings]


def _bound(layers: Sequence[Layer], spec: GraphNode, bind: Bind | None) -> list[Layer]:
    return [bind(spec, layer) if isinstance(layer, Cache) and bind is not None else layer for layer in layers]


def _checked(node: Node, spec: GraphNode, worker: str, counter: NodeCounter) -> Handler[Any]:
    """The node's verb between two checks: what it takes, and that it gives what it declared, row by row."""
    verb: Handler[Any] = getattr(node, KINDS[spec.kind].verb)
    check = InputCheck(spec.takes, node=spec.name)
    gives = [(name, Fit(told)) for name, told in spec.gives.items()]
    pid = os.getpid()
    gathers = isinstance(node, Aggregate) and node.gathers

    async def call(request: Tensors | Branches, context: Context, /) -> Tensors:
        try:
            if isinstance(request, Tensors):
                check(request)
            elif not gathers:
                request.check_once()
            rows, clock = request.rows, context.clock
            began = clock.now()
            try:
                answer = await verb(request, context)
            except RequestError as error:
                if isinstance(partial := error.partial, Partial):
                    _check_answer(partial.answer, gives, len(partial.rows), node.expands)
                    if context.timings is not None:
                        told = NodeTiming(node=spec.name, worker=worker, pid=pid, rows=len(partial.rows))
                        context.timings.append(replace(told, compute_s=clock.now() - began))
                raise
            finally:
                took_s = clock.now() - began
                counter.ran(rows, took_s)
            _check_answer(answer, gives, rows, node.expands)
        except BaseException as error:
            context.explain(error, node=spec.name)
            raise
        if context.timings is not None:
            timing = NodeTiming(node=spec.name, worker=worker, pid=pid, rows=answer.rows, compute_s=took_s)
            context.timings.append(timing)
        return answer

    return call


def _check_answer(answer: object, gives: list[tuple[str, Fit]], rows: int, expands: bool) -> None:
    """Hold an answer against the node's signature. Raises NodeFailed."""
    if not isinstance(answer, Tensors):
        raise NodeFailed(f"answered with {type(answer).__name__} instead of Tensors")
    if expands:
        rows = _check_sources(answer.sources, rows)
    elif answer.sources is not None:
        raise NodeFailed("gave sources, and its class does not say that it expands")
    for name, fit in gives:
        array = answer.get(name)
        if array is None:
            raise NodeFailed(f"gave no tensor {name!r}", tensor=name)
        if wrong := fit.mismatch(array):
            raise NodeFailed(f"gave a tensor {name!r} that {wrong}", tensor=name)
        if array.shape[:1] != (rows,):
            raise NodeFailed(f"gave a tensor {name!r} of shape {list(array.shape)} for {rows} rows", tensor=name)
    if len(answer) != len(gives):
        unknown = next(name for name in answer if name not in dict(gives))
        raise NodeFailed(f"gave a tensor {unknown!r} that its signature does not have", tensor=unknown)


def _check_sources(sources: Array | None, rows: int) -> int:
    """How many rows an answer has whose rows come from `rows` others."""
    if sources is None:
        raise NodeFailed("expands, and gave no sources")
    if len(sources) and int(sources[-1]) >= rows:
        raise NodeFailed(f"gave a row of row {sources[-1]}, where {rows} were given")
    return len(sources)


def _observed(handler: Handler[Tensors], spec: GraphNode, worker: str, *, layered: bool) -> Handler[Tensors]:
    """What the node itself does not account for was spent waiting in its layers."""
    if not layered:
        return handler

    async def timed(request: Tensors, context: Context, timings: list[NodeTiming]) -> Tensors:
        own: list[NodeTiming] = []
        began = context.clock.now()
        answer = await handler(request, replace(context, timings=own))
        elapsed_s = context.clock.now() - began
        # A request that a batch layer cut up was given to the node in pieces: they count as one.
        compute_s = sum(timing.compute_s for timing in own)
        if own:
            queue_s = max(0.0, elapsed_s - compute_s)
            whole = replace(own[0], rows=answer.rows, compute_s=compute_s, queue_s=queue_s)
            timings.append(whole)
        else:
            # Answered by its cache, or by what somebody else had computed.
            waited = NodeTiming(node=spec.name, worker=worker, pid=os.getpid(), rows=answer.rows, queue_s=elapsed_s)
            timings.append(waited)
        return answer

    def call(request: Tensors, context: Context, /) -> CoroutineType[Any, Any, Tensors]:
        timings = context.timings
        return handler(request, context) if timings is None else timed(request, context, timings)

    return call
