"""Whether branches can be joined: their types before anything runs, and their arrays at each request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mesh import Array, Branches, InvalidInput, NodeContractError, SetupError, Tensors, TensorSpec

__all__ = ["FLOATS", "INTEGERS", "agreed", "matching", "merged", "named", "specs_named"]

FLOATS = frozenset({"BF16", "FP16", "FP32", "FP64"})
INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_REST = "..."
Specs = Mapping[str, TensorSpec]


def named(tensors: Sequence[str] | None) -> tuple[str, ...] | None:
    """The argument `tensors` of an aggregate, looked at.

    Raises:
        SetupError: It names none, or one twice.
    """
    if tensors is not None and (not tensors or len(set(tensors)) != len(tensors)):
        raise SetupError(f"tensors is {list(tensors)}: it has to name what to join, each once, or be left out")
    return None if tensors is None else tuple(tensors)


def agreed(branches: Mapping[str, Specs], tensors: Sequence[str] | None, *, free_axis: int | None = None) -> Specs:
    """The one type of each tensor that is joined.

    Args:
        branches: What each branch gives.
        tensors: Which of it is joined; None where all branches have to give the same names, and all are.
        free_axis: An axis whose size may differ between branches; it comes back as `?`.

    Raises:
        NodeContractError: A branch lacks a tensor, or has it of another datatype or shape; names both branches.
    """
    if not branches:
        raise NodeContractError("there is no branch to join")
    first = next(iter(branches))
    found: dict[str, TensorSpec] = {}
    for name in tensors or branches[first]:
        giver = first
        for branch, specs in branches.items():
            spec = _given(branch, specs, name, branches, tensors)
            if free_axis is not None and len(spec.shape) > free_axis and _REST not in spec.shape[: free_axis + 1]:
                spec = replace(spec, shape=(*spec.shape[:free_axis], "?", *spec.shape[free_axis + 1 :]))
            both = merged(found[name], spec) if name in found else spec
            if both is None:
                told = f"{branches[branch][name]} in branch {branch!r} and {branches[giver][name]} in {giver!r}"
                raise NodeContractError(f"tensor {name!r} is {told}")
            if both != found.get(name):
                found[name], giver = both, branch
    for branch, specs in branches.items() if tensors is None else ():
        extra = next((name for name in specs if name not in found), None)
        if extra is not None:
            raise NodeContractError(_uneven(first, extra, branch, branches))
    return found


def _given(
    branch: str, specs: Specs, name: str, branches: Mapping[str, Specs], tensors: Sequence[str] | None
) -> TensorSpec:
    if name in specs:
        return specs[name]
    if tensors is None:
        raise NodeContractError(_uneven(branch, name, next(iter(branches)), branches))
    raise NodeContractError(f"branch {branch!r} gives no tensor {name!r}; it gives {_listed(specs)}")


def _uneven(branch: str, name: str, giver: str, branches: Mapping[str, Specs]) -> str:
    common = [name for name in branches[giver] if all(name in specs for specs in branches.values())]
    hint = f"; name what to join, as in tensors: [{', '.join(common)}]" if common else ""
    return f"branch {branch!r} gives no tensor {name!r}, which branch {giver!r} gives{hint}"


def _listed(specs: Specs) -> str:
    return ", ".join(f"{name}: {spec}" for name, spec in specs.items()) or "nothing"


def specs_named(branch: str, specs: Specs, tensors: Sequence[str]) -> Specs:
    """Tensors of one branch, by name.

    Raises:
        NodeContractError: It gives no such tensor.
    """
    return {name: _given(branch, specs, name, {branch: specs}, tensors) for name in tensors}


def merged(one: TensorSpec, other: TensorSpec) -> TensorSpec | None:
    """What both may be, by what is known of each; None if they differ."""
    (short, short_open), (long, long_open) = sorted((_parts(one), _parts(other)), key=lambda parts: len(parts[0]))
    if one.datatype != other.datatype or (len(short) < len(long) and not short_open):
        return None
    shape: list[int | str] = []
    for left, right in zip(short, long, strict=False):
        if isinstance(left, int) and isinstance(right, int) and left != right:
            return None
        shape.append(left if isinstance(left, int) or left == right else right if isinstance(right, int) else "?")
    ends = (_REST,) if short_open and long_open else ()
    return TensorSpec(one.datatype, (*shape, *long[len(short) :], *ends))


def _parts(spec: TensorSpec) -> tuple[tuple[int | str, ...], bool]:
    return (spec.shape[:-1], True) if spec.shape[-1:] == (_REST,) else (spec.shape, False)


def matching(
    branches: Branches, tensors: Sequence[str] | None, specs: Specs, *, free_axis: int | None = None
) -> dict[str, dict[str, Array]]:
    """The arrays of the branches that did not fail: by tensor, then by branch; nothing where all failed.

    The mesh holds each branch against its own node; here they are held against each other, because sizes that no type
    tells may differ, and because the typed service of an aggregate can be called by anyone.

    Args:
        branches: What came.
        tensors: Which of it is joined; None for all that was joined, or that the first of them has.
        specs: What is known of the tensors from `join`; empty where nobody asked.
        free_axis: An axis whose size may differ.

    Raises:
        InvalidInput: There is no branch; or one lacks a tensor, or has it of another datatype or shape: names both.
    """
    if not len(branches):
        raise InvalidInput("there is no branch to join")
    answers = branches.answers
    first = next(iter(answers), None)
    found: dict[str, dict[str, Array]] = {}
    for name in (tensors or specs or answers[first]) if first is not None else ():
        arrays: dict[str, Array] = {}
        dtype = shape = None
        for branch, answer in answers.items():
            array = answer.get(name)
            if array is None:
                raise InvalidInput(f"branch {branch!r} has no tensor {name!r}", tensor=name)
            rest = array.shape[1:]
            if free_axis is not None:
                rest = (*rest[: free_axis - 1], *rest[free_axis:])
            if dtype is None:
                dtype, shape = array.dtype, rest
                wrong = specs[name].mismatch(array) if name in specs else ""
                if wrong:
                    raise InvalidInput(f"tensor {name!r} of branch {branch!r} {wrong}", tensor=name)
            elif array.dtype != dtype or rest != shape:
                raise InvalidInput(_differs(name, branch, answer, first or "", answers), tensor=name)
            arrays[branch] = array
        found[name] = arrays
    return found


def _differs(name: str, branch: str, answer: Tensors, first: str, answers: Mapping[str, Tensors]) -> str:
    mine, theirs = answer[name], answers[first][name]
    told = f"{mine.dtype}{list(mine.shape)} in branch {branch!r} and {theirs.dtype}{list(theirs.shape)} in {first!r}"
    return f"tensor {name!r} is {told}"
