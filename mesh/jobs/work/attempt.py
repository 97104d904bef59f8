"""`GraphRun`: one attempt at a job is one call of the graph, through the same admission as at the gateway.

So a job's result is that of `Run`, to the bit, and its errors are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from mesh.context import Context
from mesh.errors import NodeFailed, RequestError
from mesh.runtime.worker import limits_of
from mesh.tensors import Array, Tensors
from mesh.topology.graph import Graph, edge_node
from mesh.transports.admission import Admission
from mesh.transports.contract import GRAPH, Endpoint, GraphHandler

__all__ = ["GraphRun", "Publish"]

log = logging.getLogger("mesh.jobs")

Publish = Callable[[str, Tensors | RequestError], Awaitable[object]]
"""Told of each node that ends: what it gives, or why it gives nothing."""


class GraphRun:
    """A graph as a worker runs it for jobs. Good for any number of jobs at once, up to the graph's own limit.

    Args:
        graph: What it is.
        handler: What answers for it: the gateway's executor, counted or not.
    """

    def __init__(self, graph: Graph, handler: GraphHandler) -> None:
        self._endpoint = Endpoint(kind=GRAPH, name=graph.name, handler=handler, front=True)
        self._limits = limits_of(graph)
        self._admission = Admission([self._endpoint], self._limits)
        self._outputs = tuple(graph.outputs)
        self._gives = frozenset(map(edge_node, graph.outputs.values()))
        branches = {name for node in graph.nodes if node.name in self._gives for name in node.branches}
        self.bit_by_bit = len(self._gives | branches) > 1
        """Whether there is more than one thing to tell while it runs."""

    async def __call__(self, inputs: Tensors, context: Context, publish: Publish) -> Tensors:
        """Run it.

        Args:
            inputs: What the graph takes.
            context: With a deadline; without one the graph's default is kept to.
            publish: Told of what comes, where it comes bit by bit. What it raises is logged, and changes nothing.

        Raises:
            RequestError: Why it failed.
        """
        if not self.bit_by_bit:
            return await self._admission.run(self._endpoint, inputs, context)
        found: dict[str, Array] = {}
        error: RequestError | None = None
        async with aclosing(self._admission.stream(self._endpoint, inputs, context)) as events:
            async for node, result in events:
                error = result if isinstance(result, RequestError) else None
                if not isinstance(result, RequestError) and node in self._gives:
                    found.update(result.items())
                await _tell(publish, node, result)
        if error is not None:
            # Nothing follows an error that no output could do without.
            error.locate(node="", request_id=context.request_id)
            raise error
        return self._whole(found, context)

    def _whole(self, found: dict[str, Array], context: Context) -> Tensors:
        missing = [name for name in self._outputs if name not in found]
        if missing:
            raise NodeFailed(f"the graph gave no {missing[0]!r}", request_id=context.request_id)
        outputs = Tensors.trusted({name: found[name] for name in self._outputs})
        outputs.check_size(self._limits.most_bytes(GRAPH), "gives")
        return outputs


async def _tell(publish: Publish, node: str, result: Tensors | RequestError) -> None:
    try:
        await publish(node, result)
    except Exception as error:
        # Whoever watches sees less, and the result all the same.
        log.debug("what %s gave could not be told to those who watch: %s", node, error)
