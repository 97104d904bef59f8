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

An aggregate takes `Branches` instead of `Tensors`: the answer or the error of each node that feeds it, and of how many
rows they are branches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from mesh.context import Context
from mesh.errors import InvalidInput, RequestError
from mesh.tensors import Tensors

__all__ = ["Branches", "Handler", "Layer", "stack"]


class Branches(Mapping[str, Tensors | RequestError]):
    """What an aggregate is given: by branch, in the order of the file, its tensors or the error it ended in.

    A branch that ran on some of the rows only says which in its `Tensors.sources`: numbers below `rows`, each once.
    Where it has no sources, it answers every row. Only an aggregate that `gathers` may be given a branch with several
    rows for one of the join's.

    Args:
        branches: The branches.
        rows: How many rows the join has to answer; taken from the branches where left out.

    Raises:
        InvalidInput: Nothing says how many rows there are, two branches that answer every row differ in them, or a
            branch answers rows that there are not.
    """

    __slots__ = ("_branches", "_repeating", "rows")

    def __init__(self, branches: Mapping[str, Tensors | RequestError], rows: int | None = None) -> None:
        self._branches = dict(branches)
        self.rows = _rows_of(self._branches) if rows is None else rows
        self._repeating = ""
        for name, branch in self._branches.items():
            if isinstance(branch, Tensors) and _check_branch(name, branch, self.rows):
                self._repeating = self._repeating or name

    @classmethod
    def trusted(cls, branches: dict[str, Tensors | RequestError], rows: int) -> Branches:
        """Wrap what the executor made, without looking at it again."""
        made = cls.__new__(cls)
        made._branches = branches
        made._repeating = ""
        made.rows = rows
        return made

    def __getitem__(self, name: str) -> Tensors | RequestError:
        return self._branches[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._branches)

    def __len__(self) -> int:
        return len(self._branches)

    def __repr__(self) -> str:
        return f"Branches({self._branches!r}, rows={self.rows})"

    @property
    def answers(self) -> dict[str, Tensors]:
        """The branches that did not fail, in their order."""
        return {name: branch for name, branch in self._branches.items() if isinstance(branch, Tensors)}

    @property
    def errors(self) -> dict[str, RequestError]:
        """The branches that failed, in their order."""
        return {name: branch for name, branch in self._branches.items() if isinstance(branch, RequestError)}

    def check_once(self) -> None:
        """Hold what did not come from the executor against the rule of every join that does not gather.

        Raises:
            InvalidInput: A branch answers a row twice; names the branch.
        """
        if self._repeating:
            raise InvalidInput(f"branch {self._repeating!r} has to answer each of its rows once")


def _rows_of(branches: Mapping[str, Tensors | RequestError]) -> int:
    for branch in branches.values():
        if isinstance(branch, Tensors) and branch.sources is None:
            return branch.rows
    raise InvalidInput("no branch tells how many rows there are")


def _check_branch(name: str, branch: Tensors, rows: int) -> bool:
    """Whether it answers a row twice."""
    if branch.sources is None:
        if branch.rows != rows:
            raise InvalidInput(f"branch {name!r} has {branch.rows} rows where others have {rows}")
        return False
    numbers: list[int] = branch.sources.tolist()
    if numbers and numbers[-1] >= rows:
        raise InvalidInput(f"branch {name!r} answers row {numbers[-1]}, and there are only rows below {rows}")
    return len(set(numbers)) != len(numbers)


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
