"""`Handler` and `Layer`: the one shape that everything in Mesh has.

A handler is an async function from a request and a context to an answer:

    async def handler(request: Tensors, context: Context) -> Tensors

- A **node** is a handler: its verb.
- A **link** to another process is a handler: it sends the request and awaits the answer.
- A **layer** makes a handler of a handler: a queue, a batch, a cache around it.
- A **graph** is a handler: the executor makes one of its nodes' handlers.

So any part of a graph can stand where one node stands, in this process, in another, or on another host, and none of
them can tell what it calls. Errors are raised, never returned. Cancelling the await cancels the work. There is no
"ready?" to ask first: admission happens inside the call, by waiting or by raising `Overloaded`.

An aggregate takes `Branches` instead of `Tensors`: the answer or the error of each node that feeds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from mesh.context import Context
from mesh.errors import RequestError
from mesh.tensors import Tensors

__all__ = ["Branches", "Handler", "Layer", "stack"]

Branches = Mapping[str, Tensors | RequestError]
"""What an aggregate is given: by branch, in the order of the file, its tensors or the error it ended in."""

Request = TypeVar("Request", contravariant=True)


class Handler(Protocol[Request]):
    """An async function from request to answer."""

    async def __call__(self, request: Request, context: Context, /) -> Tensors:
        """Answer one request.

        Raises:
            RequestError: Why it could not be answered.
        """
        ...


class Layer(Protocol):
    """Handler to handler. A layer is a frozen settings object that can be called; it knows no other layer."""

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        """Wrap `handler`. Called once a node, when the worker is built."""
        ...


def stack(handler: Handler[Tensors], *layers: Layer) -> Handler[Tensors]:
    """Wrap `handler` in `layers`, the outermost first: `stack(h, a, b)` is `a(b(h))`."""
    for layer in reversed(layers):
        handler = layer(handler)
    return handler
