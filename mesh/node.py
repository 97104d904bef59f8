"""`Node`: the only thing a user writes.

A node is a plain class with a keyword-only constructor (its `with:` block in the topology file), an async context
manager for load and unload, and one verb by kind. It can be built and called in a REPL with no mesh around it:

    class Scale(Preprocess):
        signature = Signature.parse("x: FP32[rows, n] -> x: FP32[rows, n]")

        def __init__(self, *, divide_by: float) -> None:
            self._divide_by = np.float32(divide_by)

        async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
            return Tensors({"x": inputs["x"] / self._divide_by})

It knows no transport, no batching and no neighbour. What it is given is read-only; row i of what it gives answers row
i of what it was given. It raises `InvalidInput` for what the caller did wrong, with the row as `row=` and not in its
text; anything else that it raises becomes `NodeFailed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ValidationInfo

from mesh.context import Context
from mesh.handler import Branches
from mesh.keeping import CacheEntry, CacheUse
from mesh.signature import Signature, TensorSpec
from mesh.tensors import Tensors

__all__ = ["KINDS", "Aggregate", "Cache", "Kind", "ModelFile", "Needs", "Node", "Predict", "Preprocess", "kind_of"]


def _confined(path: Path, info: ValidationInfo) -> Path:
    """A file under the model root that the topology's compiler put into the validation context."""
    root: Path | None = info.context.get("model_root") if info.context else None
    if root is None:
        return path
    root = root.resolve()
    # Resolved first, so that neither `..` nor a symbolic link leads out.
    found = (root / path).resolve()
    if not found.is_relative_to(root):
        raise ValueError(f"{path} lies outside the model root")
    if not found.is_file():
        raise ValueError(f"there is no file {path} in the model root")
    return found


ModelFile = Annotated[Path, AfterValidator(_confined)]
"""Annotate a constructor argument with this: the compiler gives it a path inside the model root, or refuses."""


class Node(ABC):
    """What every kind shares."""

    kind: ClassVar[str]
    """`preprocess`, `predict`, `aggregate` or `cache`."""
    signature: Signature
    """What it takes and gives; a class attribute, or a property that may read a model file."""
    version: str = "1"
    """Declared by the author, raised whenever answers may change."""

    expands: ClassVar[bool] = False
    """Whether row i of the answer need not belong to row i of what it was given: a page gives its lines. Every answer
    then says by `Tensors(..., sources=...)` which row each of its rows came from: any number a row, also none."""

    async def __aenter__(self) -> Self:
        """Load: open the model, warm it up. The node is ready when this returns."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Unload: give everything back. Called once for each successful load."""

    def digest(self) -> str:
        """Hex digest of whatever file decides the answers (a model), or the empty text. Read once, when built."""
        return ""


class Preprocess(Node):
    """Input to input: decode, scale, tokenise. A failure is most often the caller's fault."""

    kind: ClassVar[str] = "preprocess"

    @abstractmethod
    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        """Row i of the answer belongs to row i of `inputs`, unless the class `expands`."""


class Predict(Node):
    """A model."""

    kind: ClassVar[str] = "predict"

    @abstractmethod
    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """Row i of the answer belongs to row i of `inputs`, unless the class `expands`."""


Needs = Literal["every", "any", "none"] | tuple[str, ...]
"""Which branches have to answer a row so that an aggregate can: `every` one; `any` one; `none`, because it has
something to say without them; or those of these names, each of them."""


class Aggregate(Node):
    """Several branches to one answer.

    Where a branch runs on some rows only, or may fail, `needs` says which rows can be answered all the same. From it,
    and from the conditions of the branches, `mesh check` tells which rows could end without an answer. Asked for a row
    that it cannot answer, an aggregate raises the error of a branch that failed, or an `InvalidInput` naming the row.
    """

    kind: ClassVar[str] = "aggregate"
    signature: Signature = Signature({}, {})

    gathers: ClassVar[bool] = False
    """Whether it puts the rows of a node that expands together again: then a branch may have several rows for a row of
    the join, or none. No other aggregate is given a branch that answers a row twice."""
    needs: Needs = "every"
    """Of the class, or of an instance where its arguments decide; known once it is built."""

    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        """What it gives when fed by these branches; asked before anything is launched, and again where it will run.

        Raises:
            NodeContractError: It cannot join branches of these types; says which.
        """
        return self.signature.outputs

    @abstractmethod
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        """`branches.rows` rows; a branch whose tensors have `sources` answers only those of them."""


class Cache(Node):
    """Keeps values by namespace and key, bounded in bytes.

    It takes no part in the flow: cache layers of other nodes ask it, from whichever worker they run in.

    Namespaces are texts of 1 to 512 bytes, keys 16 to 64 bytes, values any bytes.
    """

    kind: ClassVar[str] = "cache"
    signature: Signature = Signature({}, {})

    @abstractmethod
    async def get(self, namespace: str, keys: Sequence[bytes]) -> Sequence[CacheEntry | None]:
        """What there is, by key in their order: with the seconds that it stays. None where there is nothing."""

    @abstractmethod
    async def put(self, namespace: str, entries: Sequence[CacheEntry]) -> int:
        """Keep values, each in place of what its key had; how many are kept."""

    @abstractmethod
    async def delete(self, namespace: str, keys: Sequence[bytes]) -> int:
        """Forget keys; how many of them there were."""

    @abstractmethod
    async def clear(self, namespace: str | None = None) -> int:
        """Forget everything of a namespace, or everything; how many entries that were."""

    @abstractmethod
    async def stats(self, namespace: str | None = None) -> CacheUse:
        """How it does; entries and bytes of one namespace only, where one is given."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of node: its class, its verb and the gRPC service that carries it."""

    name: str
    node: type[Node]
    verb: str
    """Of a cache, which has several, the one that answers most calls."""
    service: str


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("preprocess", Preprocess, "preprocess", "mesh.v1.PreprocessService"),
        Kind("predict", Predict, "predict", "mesh.v1.PredictService"),
        Kind("aggregate", Aggregate, "aggregate", "mesh.v1.AggregateService"),
        Kind("cache", Cache, "get", "mesh.v1.CacheService"),
    )
}
"""The table that contract tests, codec and servicers loop over."""


def kind_of(node: type[Node]) -> Kind:
    """The kind that a node class belongs to, by its `kind` attribute."""
    return KINDS[node.kind]
