"""The signature of an ONNX model in the words of the mesh, and what has to be translated between the two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh import NodeContractError, SetupError, Signature, TensorSpec

__all__ = ["OnnxTensor", "Side", "bind"]

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_EXPORT = (
    "export it with a dynamic axis 0: in PyTorch dynamic_axes={{{name!r}: {{0: 'rows'}}}}, "
    "in skl2onnx an initial type whose first dimension is None"
)


class OnnxTensor(Protocol):
    """What onnxruntime says of an input or output."""

    @property
    def name(self) -> str:
        """The name in the model."""
        ...

    @property
    def type(self) -> str:
        """Such as `tensor(float)`."""
        ...

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Sizes, symbols, and None where nothing is known."""
        ...


@dataclass(frozen=True, slots=True)
class Side:
    """The inputs or the outputs, in the order of the model."""

    specs: dict[str, TensorSpec]
    onnx_names: tuple[str, ...]
    """For each of `specs`, the name in the model."""


def bind(
    model: object, inputs: Sequence[OnnxTensor], outputs: Sequence[OnnxTensor], wanted: Sequence[str] | None
) -> tuple[Signature, Side, Side]:
    """The signature, and both sides with the model's own names.

    Axis 0 of every tensor is the batch and is called `rows`; other symbols stay, where they are identifiers.

    Args:
        model: What to call the model in error texts.
        inputs: All inputs of the model.
        outputs: All outputs of the model.
        wanted: Names of the outputs to give, in this order; None for all.

    Raises:
        SetupError: An output that is wanted does not exist.
        NodeContractError: A tensor has no dynamic batch dimension, or a type that no datatype stands for.
    """
    chosen = _choose(model, outputs, wanted)
    if not inputs:
        raise NodeContractError(f"{model}: the model has no inputs, so there is no batch to answer")
    batch = {tensor.shape[0] for tensor in (*inputs, *chosen) if tensor.shape and isinstance(tensor.shape[0], str)}
    sides = tuple(_side(model, kind, tensors, batch) for kind, tensors in (("input", inputs), ("output", chosen)))
    return Signature(sides[0].specs, sides[1].specs), sides[0], sides[1]


def _choose(model: object, outputs: Sequence[OnnxTensor], wanted: Sequence[str] | None) -> Sequence[OnnxTensor]:
    if wanted is None:
        return outputs
    by_name: dict[str, OnnxTensor] = {}
    for tensor in outputs:
        by_name[tensor.name] = by_name[_mesh_name(tensor.name)] = tensor
    if not wanted:
        raise SetupError(f"{model}: outputs is empty; the model gives {', '.join(t.name for t in outputs)}")
    for name in wanted:
        if name not in by_name:
            raise SetupError(f"{model}: there is no output {name!r}; it gives {', '.join(t.name for t in outputs)}")
    return [by_name[name] for name in dict.fromkeys(wanted)]


def _side(model: object, kind: str, tensors: Iterable[OnnxTensor], batch: set[str]) -> Side:
    specs: dict[str, TensorSpec] = {}
    onnx_names: list[str] = []
    for tensor in tensors:
        name = _mesh_name(tensor.name)
        if name in specs:
            raise NodeContractError(f"{model}: two {kind}s would both be called {name!r}; rename one in the model")
        where = f"{model}: {kind} {tensor.name!r}"
        specs[name] = TensorSpec(_datatype(where, tensor.type), _shape(where, tensor, batch))
        onnx_names.append(tensor.name)
    return Side(specs, tuple(onnx_names))


def _mesh_name(onnx_name: str) -> str:
    """The name itself where a topology can say it, else with `_` for what it can't: `onnx::Add:0` is `onnx__Add_0`."""
    name = re.sub(r"[^\w./-]", "_", onnx_name)[:128]
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"[:128]


def _datatype(where: str, onnx_type: str) -> str:
    inside = re.fullmatch(r"tensor\((\w+)\)", onnx_type)
    if inside is None:
        raise NodeContractError(
            f"{where} is {onnx_type}, not a tensor; leave it out with `outputs`, or export without it "
            "(skl2onnx: options={'zipmap': False})"
        )
    if inside[1] not in _DATATYPES:
        raise NodeContractError(
            f"{where} has element type {inside[1]}, which onnxruntime cannot hand to Python; cast it in the model"
        )
    return _DATATYPES[inside[1]]


def _shape(where: str, tensor: OnnxTensor, batch: set[str]) -> tuple[int | str, ...]:
    if not tensor.shape:
        raise NodeContractError(
            f"{where} has no batch dimension (it is a scalar, or the model does not say its shape); "
            + _EXPORT.format(name=tensor.name)
        )
    first, *rest = tensor.shape
    if isinstance(first, int):
        raise NodeContractError(
            f"{where} has shape {list(tensor.shape)}: its batch dimension is fixed at {first}; "
            + _EXPORT.format(name=tensor.name)
        )
    for axis, size in enumerate(rest, start=1):
        if size in batch:
            raise NodeContractError(
                f"{where} has the batch dimension {size!r} on axis {axis} too: its rows would not be independent"
            )
    return ("rows", *(_dimension(size) for size in rest))


def _dimension(size: int | str | None) -> int | str:
    if isinstance(size, int):
        return size
    # An expression such as `T/8` cannot be checked, and `rows` is what axis 0 is called.
    return size if size is not None and size.isidentifier() and size != "rows" else "?"
