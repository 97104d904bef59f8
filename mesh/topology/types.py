"""Edges against signatures: datatypes, ranks, and sizes that have to agree.

The type of an edge tells of each size what is known before anything runs: a number, or `?`; `rows` is the batch, and
`...` stands last where not even the rank is known. A symbol of a signature is bound by the first edge that knows its
size, and every other place of the symbol has to agree; `...` is such a symbol for several sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from mesh.signature import ANY, REST, Dimension, Signature, TensorSpec

__all__ = ["ROWS", "Binding", "Mismatch", "bind", "inputs_of", "outputs_of"]

ROWS = "rows"
Mismatch = tuple[str, str]
"""The tensor that does not fit, and why."""
Sizes = tuple[Dimension, ...]


@dataclass(slots=True)
class Binding:
    """What the symbols of a signature stand for at one node."""

    sizes: dict[str, Dimension] = field(default_factory=dict[str, Dimension])
    rest: Sizes = (REST,)
    """What `...` stands for; itself ends in `...` where more is not known."""


def bind(signature: Signature, given: Mapping[str, TensorSpec]) -> tuple[Binding, list[Mismatch]]:
    """Hold the edges that feed a node against what it takes.

    Args:
        signature: What the node takes.
        given: The type of the edge that feeds each tensor; tensors of which it is not known are left out.

    Returns:
        What the signature's symbols stand for, and what does not fit. What does not fit binds nothing.
    """
    binding = Binding()
    wrong: list[Mismatch] = []
    for name, wanted in signature.inputs.items():
        if name not in given:
            continue
        found = _bound(given[name], wanted, binding)
        if isinstance(found, str):
            wrong.append((name, f"it is {given[name]} where {wanted} is needed{found}"))
        else:
            binding = found
    return binding, wrong


def _bound(given: TensorSpec, wanted: TensorSpec, binding: Binding) -> Binding | str:
    """The binding with what one more tensor tells, or why it does not fit where the two types alone do not show it."""
    sizes, open_ended = _parts(given.shape)
    needed, takes_more = _parts(wanted.shape)
    too_many = len(sizes) > len(needed) and not takes_more
    too_few = len(sizes) < len(needed) and not open_ended
    if given.datatype != wanted.datatype or too_many or too_few:
        return ""
    bound = Binding(dict(binding.sizes), binding.rest)
    for size, symbol in zip(sizes, needed, strict=False):
        if isinstance(symbol, int):
            if size not in (symbol, ANY):
                return ""
        elif symbol != ANY:
            agreed = _agreed(bound.sizes.get(symbol, ANY), size)
            if agreed is None:
                return f" and {symbol} is {bound.sizes[symbol]}"
            bound.sizes[symbol] = agreed
    if takes_more:
        rest = (*sizes[len(needed) :], REST) if open_ended else sizes[len(needed) :]
        merged = _merged(bound.rest, rest)
        if merged is None:
            return f" and ... is [{', '.join(map(str, bound.rest))}]"
        bound.rest = merged
    return bound


def _parts(shape: Sizes) -> tuple[Sizes, bool]:
    """The sizes before a `...`, and whether there is one."""
    return (shape[:-1], True) if shape[-1:] == (REST,) else (shape, False)


def _agreed(one: Dimension, other: Dimension) -> Dimension | None:
    """The size that both may be; None if they differ."""
    if ANY in (one, other):
        return other if one == ANY else one
    return one if one == other else None


def _merged(one: Sizes, other: Sizes) -> Sizes | None:
    """The sizes that both may be; None if they differ."""
    (short, short_open), (long, long_open) = sorted((_parts(one), _parts(other)), key=lambda parts: len(parts[0]))
    if len(short) < len(long) and not short_open:
        return None
    merged: list[Dimension] = []
    for left, right in zip(short, long, strict=False):
        agreed = _agreed(left, right)
        if agreed is None:
            return None
        merged.append(agreed)
    # Only where both go on is it open how far.
    ends = (REST,) if short_open and long_open else ()
    return (*merged, *long[len(short) :], *ends)


def inputs_of(signature: Signature, binding: Binding, given: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """What arrives at a node: its inputs, with what the edges tell put in for symbols, `...` and `?`.

    A symbol of unknown size stays, because tensors that share it have to agree when they come; so do the sizes that
    inputs which end in `...` share: where the edges tell their number and not each of them, they are named `axis1` on.

    Args:
        signature: What the node takes.
        binding: What its symbols stand for.
        given: The type of the edge that feeds each tensor; other tensors are left out.
    """
    open_ended = sum(spec.shape[-1:] == (REST,) for spec in signature.inputs.values())
    rest = _named(binding.rest, signature) if open_ended > 1 else binding.rest
    found: dict[str, TensorSpec] = {}
    for name, spec in signature.inputs.items():
        if name in given:
            needed, takes_more = _parts(spec.shape)
            arriving = _parts(given[name].shape)[0][: len(needed)]
            pairs = zip_longest(needed, arriving, fillvalue=ANY)
            sizes = (_known(size, coming, binding) for size, coming in pairs)
            found[name] = TensorSpec(spec.datatype, (*sizes, *(rest if takes_more else ())))
    return found


def _known(size: Dimension, arriving: Dimension, binding: Binding) -> Dimension:
    """One size of an input as far as it is known; else what the signature calls it."""
    if size == ANY:
        return arriving
    bound = binding.sizes.get(size, ANY) if isinstance(size, str) else size
    return size if bound == ANY else bound


def _named(rest: Sizes, signature: Signature) -> Sizes:
    """The sizes of a `...` with a name for each that is not known; a name that the signature does not use."""
    used = {size for spec in signature.inputs.values() for size in spec.shape}
    word = "axis"
    while any(f"{word}{axis}" in used for axis in range(1, len(rest) + 1)):
        word = f"{word}_"
    return tuple(f"{word}{axis}" if size == ANY else size for axis, size in enumerate(rest, 1))


def outputs_of(signature: Signature, binding: Binding) -> dict[str, TensorSpec]:
    """What a node gives, with its symbols replaced by what they were bound to, or by `?`."""
    found: dict[str, TensorSpec] = {}
    for name, spec in signature.outputs.items():
        sizes: list[Dimension] = []
        for axis, size in enumerate(spec.shape):
            if axis == 0:
                sizes.append(ROWS)
            elif size == REST:
                sizes.extend(binding.rest)
            else:
                sizes.append(binding.sizes.get(size, ANY) if isinstance(size, str) else size)
        found[name] = TensorSpec(spec.datatype, tuple(sizes))
    return found
