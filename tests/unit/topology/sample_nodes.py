"""Nodes that the topologies of these tests name: right ones, and one for each way in which a class can be wrong."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from mesh import (
    Aggregate,
    Branches,
    Context,
    Duration,
    ModelFile,
    NodeContractError,
    Predict,
    Preprocess,
    Signature,
    Tensors,
    TensorSpec,
)
from mesh.node import Node


class _Given(Preprocess):
    """Gives what it is given: what these nodes answer is not what these tests are about."""

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        return inputs


class Scale(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(self, *, divide_by: float) -> None:
        self.divide_by = divide_by


class Model(Predict):
    signature = Signature.parse("X: FP32[rows, 64] -> label: INT64[rows], p: FP32[rows, 10]")

    def __init__(self, *, add: int = 0) -> None:
        self.add = add

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return inputs


class Join(Aggregate):
    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        return {"label": TensorSpec("INT64", ("rows",)), "sizes": TensorSpec("INT64", ("rows", "n"))}

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        return Tensors({})


class Add(_Given):
    """Two inputs that share a size."""

    signature = Signature.parse("a: FP32[rows, n], b: FP32[rows, n] -> sum: FP32[rows, n]")


class Stack(_Given):
    """Two inputs that share all further dimensions."""

    signature = Signature.parse("a: FP32[rows, ...], b: FP32[rows, ...] -> both: FP32[rows, 2, ...]")


class Transpose(_Given):
    signature = Signature.parse("x: FP32[rows, n, m] -> x: FP32[rows, m, n], sizes: INT64[rows, k]")


class Text(_Given):
    signature = Signature.parse("text: BYTES[rows] -> tokens: INT64[rows, ?]")


class Unranked(_Given):
    """What it gives has a rank that only a run tells."""

    signature = Signature.parse("x: FP32[rows, 64] -> y: FP32[rows, ...]")


class Many(_Given):
    signature = Signature.parse(
        "first_image: FP32[rows], second_image: FP32[rows], third: INT64[rows] -> x: FP32[rows, 64]"
    )


class FromFile(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(self, *, model: ModelFile, threads: int = 1) -> None:
        self.model = model

    def digest(self) -> str:
        return self.model.read_text()


class FromFiles(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(self, *, parts: list[ModelFile], other: ModelFile | None = None) -> None:
        self.parts = parts


class BrokenFile(_Given):
    def __init__(self, *, model: ModelFile) -> None:
        self.model = model

    @property
    def signature(self) -> Signature:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise ValueError("not a model")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Settings(_Given):
    """Arguments of every type that a file can hold."""

    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(
        self,
        *,
        words: tuple[str, ...] = (),
        table: Mapping[str, list[int]] | None = None,
        mode: Literal["fast", "exact"] = "fast",
        colour: Colour = Colour.RED,
        pair: tuple[int, str] = (0, ""),
        either: int | str = 0,
        flag: bool = False,
        wait: Duration = 0.0,
        anything: Any = None,
        ratio: float = 1.0,
    ) -> None:
        self.given = (words, table, mode, colour, pair, either, flag, wait, anything, ratio)


class Refusing(_Given):
    def __init__(self, *, threads: int = 0) -> None:
        raise ValueError("threads has to be above 0\nand it is not")


class Exiting(_Given):
    def __init__(self) -> None:
        sys.exit(3)


class Positional(_Given):
    def __init__(self, threads: int = 1) -> None:
        self.threads = threads


class Splat(_Given):
    def __init__(self, **settings: int) -> None:
        self.settings = settings


class Pool:
    """A type that no file can hold."""


class NeedsPool(_Given):
    def __init__(self, *, pool: Pool) -> None:
        self.pool = pool


class MayHavePool(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(self, *, pool: Pool | None = None) -> None:
        self.pool = pool


class UnknownType(_Given):
    def __init__(self, *, pool: Poool) -> None:  # type: ignore[name-defined]  # noqa: F821
        self.pool = pool


class Unreadable(_Given):
    def __init__(self, *, pool: "no type") -> None:  # type: ignore[valid-type]  # pyright: ignore  # noqa: F722
        self.pool = pool


def _not_today(word: str) -> str:
    raise RuntimeError("not today")


class Fussy(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def __init__(self, *, word: Annotated[str, AfterValidator(_not_today)]) -> None:
        self.word = word


class Unfinished(Predict):
    """Has no `predict`."""


class NoKind(Node):
    """Of no kind."""


class SaysSo(Node):
    """Says that it is of a kind, and lacks its verb."""

    kind = "predict"
    signature = Signature.parse("x: FP32[rows] -> x: FP32[rows]")


class Plain:
    """No node."""


a_function = len


class Undeclared(_Given):
    """Has no signature."""


class Stumbling(_Given):
    @property
    def signature(self) -> Signature:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.lost  # type: ignore[attr-defined]  # pyright: ignore


class TextSignature(_Given):
    signature = "x: FP32[rows] -> x: FP32[rows]"  # type: ignore[assignment]  # pyright: ignore


class NotByRows(_Given):
    signature = Signature.parse("x: FP32[64] -> x: FP32[rows]")


class MadeUp(_Given):
    signature = Signature({"x": TensorSpec("FP31", ("rows",))}, {})


class Nameless(_Given):
    signature = Signature({"a b": TensorSpec("FP32", ("rows",))}, {})


class Unwritable(_Given):
    signature = Signature({"x": TensorSpec("FP32", ("rows", "1"))}, {})


class NoMapping(_Given):
    signature = Signature([], {})  # type: ignore[arg-type]  # pyright: ignore


class NoSpecs(_Given):
    signature = Signature({"x": "FP32[rows]"}, {})  # type: ignore[dict-item]  # pyright: ignore


class OddDigest(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def digest(self) -> str:
        return 7  # type: ignore[return-value]  # pyright: ignore


class OddVersion(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")
    version = 2  # type: ignore[assignment]  # pyright: ignore


class NoVersion(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    @property
    def version(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {}["VERSION"]


class NoDigest(_Given):
    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")

    def digest(self) -> str:
        raise FileNotFoundError("weights.bin")


class Picky(Join):
    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        raise NodeContractError("they differ in datatype")


class Clumsy(Join):
    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        return {"x": branches["nobody"]["x"]}


class Silent(Join):
    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        return None  # type: ignore[return-value]  # pyright: ignore


class Scalar(Join):
    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        return {"x": TensorSpec("FP32", ())}


class OddJoin(Join):
    def digest(self) -> str:
        return 7  # type: ignore[return-value]  # pyright: ignore


class OtherJoin(Join):
    """Joins as Join does."""


class Lines(_Given):
    """Makes rows of a row."""

    signature = Signature.parse("x: FP32[rows, ...] -> x: FP32[rows, ...]")
    expands = True


class AnyOf(Join):
    needs = "any"


class Named(Join):
    """Needs the branches that it is told to."""

    def __init__(self, *, needs: tuple[str, ...]) -> None:
        self.needs = needs


class Collect(Join):
    """Puts the rows of a node that expands together again."""

    gathers = True
    needs = "none"


class OddNeeds(Join):
    needs = "some"  # type: ignore[assignment]  # pyright: ignore


class NoNeeds(Join):
    @property
    def needs(self) -> str:  # type: ignore[override]  # pyright: ignore
        raise LookupError("needs")
