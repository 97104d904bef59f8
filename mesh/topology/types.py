"""Edges against signatures: datatypes, ranks, and sizes that have to agree.

A size is a number where it is known before anything runs, else `?`; `rows` is the batch. A symbol of a signature is
bound by the first edge that knows its size, and every other place of the symbol has to agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesh.signature import ANY, REST, Dimension, Signature, TensorSpec

__all__ = ["ROWS", "Mismatch", "bind", "outputs_of"]

ROWS = "rows"
Binding = dict[str, Dimension]
Mismatch = tuple[str, str]
"""The tensor that does not fit, and why."""


def bind(
    signature: Signature, given: Mapping[str, TensorSpec]
) -> tuple[Binding, tuple[Dimension, ...], list[Mismatch]]:
    """Hold the edges that feed a node against what it takes.

    Args:
        signature: What the node takes.
        given: The type of the edge that feeds each tensor; tensors that are not fed are left out.

    Returns:
        What its symbols stand for, what its `...` stands for, and what does not fit.
    """
    binding: Binding = {}
    rest: tuple[Dimension, ...] = (REST,)
    wrong: list[Mismatch] = []
    for name, wanted in signature.inputs.items():
        found = given.get(name)
        if found is None:
            continue
        if found.datatype != wanted.datatype:
            wrong.append((name, f"is {found.datatype} where {wanted.datatype} is needed"))
            continue
        sizes = wanted.shape
        if sizes and sizes[-1] == REST:
            sizes = sizes[:-1]
            if len(found.shape) >= len(sizes):
                rest = found.shape[len(sizes) :]
                found = TensorSpec(found.datatype, found.shape[: len(sizes)])
        if found.shape and found.shape[-1] == REST:
            continue  # a model that does not tell its rank: checked when it runs
        if len(found.shape) != len(sizes):
            wrong.append((name, f"is {given[name]} where {wanted} is needed"))
            continue
        clash = next(
            ((size, known) for size, known in zip(found.shape, sizes, strict=True) if not _agree(size, known, binding)),
            None,
        )
        if clash is not None:
            bound = f" and {clash[1]} is {binding[clash[1]]}" if clash[1] in binding else ""
            wrong.append((name, f"is {given[name]} where {wanted} is needed{bound}"))
    return binding, rest, wrong


def _agree(size: Dimension, wanted: Dimension, binding: Binding) -> bool:
    """Whether a size fits; binds the symbol that it meets."""
    if isinstance(wanted, int):
        return size in (wanted, ANY) or (isinstance(size, str) and size != ROWS)
    if wanted == ANY:
        return True
    bound = binding.get(wanted, ANY)
    if bound in (ANY, size):
        binding[wanted] = size
        return True
    return size == ANY


def outputs_of(signature: Signature, binding: Binding, rest: tuple[Dimension, ...]) -> dict[str, TensorSpec]:
    """What a node gives, with its symbols replaced by what they were bound to."""
    found: dict[str, TensorSpec] = {}
    for name, spec in signature.outputs.items():
        sizes: list[Dimension] = []
        for axis, size in enumerate(spec.shape):
            if axis == 0:
                sizes.append(ROWS)
            elif size == REST:
                sizes.extend(rest)
            else:
                sizes.append(binding.get(size, ANY) if isinstance(size, str) else size)
        found[name] = TensorSpec(spec.datatype, tuple(sizes))
    return found
