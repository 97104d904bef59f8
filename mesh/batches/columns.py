"""Which columns feed which tensor, and whether they can: looked at once, before anything runs.

A tensor is fed by one column, or by several scalar ones side by side: named with commas between, or by a pattern such
as `pixel_*`, which takes them in their order in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mesh.batches.arrow import Schema, Type, pa
from mesh.batches.inputs import Input
from mesh.batches.leaves import Misfit
from mesh.batches.shapes import depth_of, resolved, uniform_shape
from mesh.errors import SetupError
from mesh.signature import REST, TensorSpec
from mesh.topology.source import did_you_mean

__all__ = ["Feed", "feeds_of", "feeds_of_plan", "kept_columns", "storage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One tensor and the columns that feed it."""

    tensor: str
    spec: TensorSpec
    columns: tuple[str, ...]

    @property
    def first(self) -> str:
        """The column that feeds it, or the first of those that do."""
        return self.columns[0]


def feeds_of(inputs: Mapping[str, TensorSpec], mapping: Mapping[str, str], source: Input) -> tuple[Feed, ...]:
    """What feeds each input of the graph.

    Args:
        inputs: What the graph takes.
        mapping: Tensor -> column, columns or pattern. A tensor that is not here is fed by the column of its name; if
            there is none, and one tensor and one column only, by that.
        source: The input.

    Raises:
        SetupError: A tensor or a column does not exist, or a column's type cannot be what the tensor takes; names both.
    """
    for tensor in mapping:
        if tensor not in inputs:
            raise SetupError(f"columns: the graph has no input {tensor!r} ({did_you_mean(tensor, inputs)})")
    feeds = [
        Feed(
            tensor=tensor, spec=spec, columns=_columns(tensor, mapping.get(tensor, ""), source, alone=len(inputs) == 1)
        )
        for tensor, spec in inputs.items()
    ]
    _as_floats(feeds, source)
    for feed in feeds:
        _check(feed, source)
    return tuple(feeds)


def feeds_of_plan(
    inputs: Mapping[str, TensorSpec], columns: Mapping[str, tuple[str, ...]], source: Input
) -> tuple[Feed, ...]:
    """The same, once it was found out and checked.

    Raises:
        SetupError: The graph takes something else than when it was.
    """
    if inputs.keys() != columns.keys():
        raise SetupError(f"the graph takes {', '.join(inputs)}, and the batch feeds {', '.join(columns)}")
    feeds = tuple(Feed(tensor=name, spec=spec, columns=columns[name]) for name, spec in inputs.items())
    _as_floats(feeds, source)
    return feeds


def _as_floats(feeds: Sequence[Feed], source: Input) -> None:
    source.as_floats([name for feed in feeds if feed.spec.datatype in _FLOATS for name in feed.columns])


def kept_columns(keep: Sequence[str], schema: Schema, outputs: Sequence[str]) -> tuple[str, ...]:
    """Columns that are written beside the outputs.

    Raises:
        SetupError: One does not exist, comes twice, or is called like an output or like the number of the row.
    """
    names: list[str] = schema.names
    for index, name in enumerate(keep):
        if name not in names:
            raise SetupError(f"keep: the input has no column {name!r} ({did_you_mean(name, names)})")
        if name in keep[:index]:
            raise SetupError(f"keep: {name!r} comes twice")
        if name in outputs:
            raise SetupError(f"keep: an output of the graph is called {name!r}, too")
        if name == "row":
            raise SetupError("keep: the column 'row' is the number of the row in every result")
    return tuple(keep)


_FLOATS = ("FP16", "FP32", "FP64", "BF16")


def _columns(tensor: str, told: str, source: Input, *, alone: bool) -> tuple[str, ...]:
    names: list[str] = source.schema.names
    if not told:
        if tensor in names:
            return (tensor,)
        fitting = ["content"] if source.format == "files" else names
        if alone and len(fitting) == 1:
            return (fitting[0],)
        hint = f"{did_you_mean(tensor, names)}): say which feeds it"
        raise SetupError(f"tensor {tensor!r}: the input has no column of that name ({hint}")
    if told in names:
        return (told,)
    if "*" in told:
        found = tuple(name for name in names if fnmatchcase(name, told))
        if not found:
            raise SetupError(
                f"tensor {tensor!r}: no column of the input matches {told!r} ({did_you_mean(told, names)})"
            )
        return found
    parts = tuple(part.strip() for part in told.split(","))
    for part in parts:
        if part not in names:
            raise SetupError(f"tensor {tensor!r}: the input has no column {part!r} ({did_you_mean(part, names)})")
    return parts


def _check(feed: Feed, source: Input) -> None:
    datatype, sizes = feed.spec.datatype, feed.spec.shape[1:]
    for name in feed.columns:
        kind: Type = source.schema.field(name).type
        leaf, depth = _leaf(kind)
        said = f"column {name!r} is {kind}, and tensor {feed.tensor!r} takes {feed.spec}"
        if not _feeds(leaf, datatype, typed=source.typed):
            raise SetupError(said)
        if depth and len(feed.columns) > 1:
            raise SetupError(f"{said}: several columns feed it, and each of those has to be scalar")
        if depth > 1 and REST not in sizes and depth != len(sizes):
            raise SetupError(f"{said}: lists of {depth} levels where it has {len(sizes)} dimensions")
        shape = uniform_shape(storage(kind))
        try:
            if shape is not None and len(feed.columns) == 1:
                resolved(feed.spec, shape)
        except Misfit:
            raise SetupError(f"{said}: it has shape {list(shape or ())}") from None
    try:
        if len(feed.columns) > 1:
            resolved(feed.spec, (len(feed.columns),))
    except Misfit:
        count = len(feed.columns)
        raise SetupError(f"tensor {feed.tensor!r} takes {feed.spec}, which {count} columns do not make") from None


def storage(kind: Type) -> Type:
    """A type without what only its storage knows of: extension types and dictionaries."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _leaf(kind: Type) -> tuple[Type, int]:
    """The type of values, and how many levels of lists they are in."""
    kind = storage(kind)
    depth = depth_of(kind)
    for _ in range(depth):
        kind = kind.value_type
    return kind, depth


def _feeds(leaf: Type, datatype: str, *, typed: bool) -> bool:
    """Whether values of a type may be what a tensor takes; whether each is shows when it is read."""
    types = pa.types
    text = types.is_string(leaf) or types.is_large_string(leaf) or types.is_string_view(leaf)
    if types.is_null(leaf):
        return True
    if text and not typed:
        return True
    if datatype == "BYTES":
        binary = types.is_binary(leaf) or types.is_large_binary(leaf) or types.is_binary_view(leaf)
        return bool(text or binary or types.is_fixed_size_binary(leaf))
    if datatype == "BOOL":
        return bool(types.is_boolean(leaf))
    return bool(types.is_integer(leaf) or types.is_floating(leaf) or types.is_decimal(leaf))
