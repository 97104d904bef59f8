"""Every error that Mesh raises.

    MeshError
    ├── SetupError             found before anything serves
    │   ├── TopologyError      the file is wrong: every mistake, each with file, line and column
    │   ├── PlacementError     a plan cannot be carried out here (port taken, model missing)
    │   └── NodeContractError  a node class breaks the contract of its kind
    └── RequestError           one request failed; the mesh goes on
        ├── InvalidInput       the caller sent what the graph does not take
        ├── NotFound           no such graph, node or tensor
        ├── Overloaded         a bound was reached; try again after `retry_after_s`
        ├── DeadlineExceeded   the request's time ran out
        ├── Cancelled          the caller went away
        ├── Unavailable        a worker could not be reached, or died with the call in flight
        └── NodeFailed         a node raised something of its own

| class | gRPC status | retryable |
|---|---|---|
| InvalidInput | INVALID_ARGUMENT | no |
| NotFound | NOT_FOUND | no |
| Overloaded | RESOURCE_EXHAUSTED | yes, after `retry_after_s` |
| DeadlineExceeded | DEADLINE_EXCEEDED | no |
| Cancelled | CANCELLED | no |
| Unavailable | UNAVAILABLE | yes, after `retry_after_s` where it says so |
| NodeFailed | INTERNAL | no |

Request errors are values: two are equal when class, text, node, tensor, row, request and hint are equal, so
an error that crossed a link equals the one that was raised.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "REQUEST_ERRORS",
    "Cancelled",
    "DeadlineExceeded",
    "InvalidInput",
    "MeshError",
    "NodeContractError",
    "NodeFailed",
    "NotFound",
    "Overloaded",
    "PlacementError",
    "Problem",
    "RequestError",
    "SetupError",
    "TopologyError",
    "Unavailable",
]


class MeshError(Exception):
    """The root: catch this to catch everything that Mesh itself raises."""


class SetupError(MeshError):
    """Something is wrong with what was written or installed; found before anything serves."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake at one place of a file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str
    hint: str = ""
    shown: tuple[str, ...] = ()
    """Lines that show the place, such as an expression with carets under what is wrong."""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        told = f"{self.file}:{self.line}:{self.column}: error: {self.text}{hint}"
        return "\n    ".join((told, *self.shown))


class TopologyError(SetupError):
    """A topology file is wrong. `problems` holds every mistake found, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PlacementError(SetupError):
    """A plan cannot be carried out on this machine: an address in use, a file gone, a worker that never got ready."""


class NodeContractError(SetupError):
    """A node class breaks the contract of its kind; the text says which rule."""


_MAX_TEXT_BYTES = 2048
_MAX_NAME_BYTES = 512
_MAX_RETRY_AFTER_S = 86_400.0


def _bounded(text: str, most_bytes: int) -> str:
    """A text that fits into the headers of a call, where errors travel, and that UTF-8 can spell."""
    if len(text) <= most_bytes and text.isascii():
        return text
    return text.encode(errors="replace")[:most_bytes].decode(errors="ignore")


class RequestError(MeshError):
    """One request failed.

    Texts are bounded here and not on the way, so that an error is the same wherever its node runs.

    Args:
        text: What went wrong, safe to show to the caller: never an internal path or key, and never the row's number,
            which is another for a caller whose rows were a part of a batch. Cut after 2 KiB.
        node: The node at which it went wrong; empty at the graph's own edge. Cut after 512 bytes, as are the next two.
        tensor: The tensor that was wrong, where one was.
        row: The row of the request that was wrong, from 0; None when it is the request as a whole.
        request_id: The request that failed.
    """

    code = "UNKNOWN"
    """The gRPC status name."""
    retryable = False
    """Whether the very same request may succeed when sent again."""
    partial: object = None
    """What other rows gave, on its way from a node to its layers (see `mesh.partial`); no part of the error."""

    def __init__(
        self,
        text: str,
        *,
        node: str = "",
        tensor: str = "",
        row: int | None = None,
        request_id: str = "",
    ) -> None:
        text = _bounded(text, _MAX_TEXT_BYTES)
        super().__init__(text)
        self.text = text
        self.node = _bounded(node, _MAX_NAME_BYTES)
        self.tensor = _bounded(tensor, _MAX_NAME_BYTES)
        self.row = row
        self.request_id = _bounded(request_id, _MAX_NAME_BYTES)

    def _identity(self) -> tuple[object, ...]:
        return (type(self), self.text, self.node, self.tensor, self.row, self.request_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestError) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __str__(self) -> str:
        where = f"node {self.node}: " if self.node else ""
        return f"{where}{self.told}"

    @property
    def told(self) -> str:
        """The text, with the row before it where there is one, as the caller counts it."""
        return self.text if self.row is None else f"row {self.row}: {self.text}"

    def locate(self, *, node: str, request_id: str) -> None:
        """Fill in the node and the request where they are not known yet."""
        self.node = self.node or node
        self.request_id = self.request_id or request_id


class InvalidInput(RequestError):
    """The caller sent something that the graph or node does not take."""

    code = "INVALID_ARGUMENT"


class NotFound(RequestError):
    """The graph, node or tensor that was named does not exist here."""

    code = "NOT_FOUND"


class _MayPass(RequestError):
    """What may be gone at the next attempt.

    Args:
        retry_after_s: Seconds after which a new attempt makes sense: from 0, where nobody knows, to one day, kept to
            the nanosecond.
    """

    retryable = True

    def __init__(
        self,
        text: str,
        *,
        retry_after_s: float = 0.0,
        node: str = "",
        tensor: str = "",
        row: int | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(text, node=node, tensor=tensor, row=row, request_id=request_id)
        # Written so that a NaN becomes 0.
        bounded_s = min(max(0.0, retry_after_s), _MAX_RETRY_AFTER_S)
        self.retry_after_s = round(bounded_s * 1e9) / 1e9

    def _identity(self) -> tuple[object, ...]:
        return (*super()._identity(), self.retry_after_s)


class Overloaded(_MayPass):
    """A bound was reached and the request was refused at once.

    Args:
        retry_after_s: Seconds after which a new attempt makes sense: from 0 to one day, kept to the nanosecond.
    """

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(RequestError):
    """The request's time ran out before it was answered."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(RequestError):
    """The caller went away before it was answered."""

    code = "CANCELLED"


class Unavailable(_MayPass):
    """A worker could not be reached, is draining, or died with the call in flight; or a breaker is open.

    Args:
        retry_after_s: Seconds after which a new attempt makes sense, where that is known, as by a breaker; else 0.
    """

    code = "UNAVAILABLE"


class NodeFailed(RequestError):
    """A node raised an exception of its own, or answered with something that its signature does not allow."""

    code = "INTERNAL"


REQUEST_ERRORS: dict[str, type[RequestError]] = {
    error.code: error
    for error in (
        InvalidInput,
        NotFound,
        Overloaded,
        DeadlineExceeded,
        Cancelled,
        Unavailable,
        NodeFailed,
    )
}
"""gRPC status name -> error class: the one table that maps errors to the wire and back."""
