"""Keys: one digest a row, over everything that its answer depends on.

A key is made in two steps. The **head** covers what all rows of a batch share: the node (its class, its model's digest
or its declared version, its `with:` block), the outputs that were asked for, the parameters that count, and the
name, datatype and row shape of each input that counts. It is written by `mesh.caches.canonical`, where nothing can be
taken for anything else, and digested by BLAKE3 to 32 bytes, which are remembered. The **row** follows: the bytes of
each input, in the order of the names. The head fixes how long each input's part is; elements of BYTES have their length
before them. So two rows have the same bytes under the same head only where they are the same row. An input's part that
is large is its digest instead (see `mesh.caches.contents`): of fixed-size elements in every row of that shape, of BYTES
behind a length that no element has.

| trust | digest | bytes | against whom |
|---|---|---|---|
| private | xxh3-128 over head and row | 16 | chance: 2^-128 a pair of rows |
| shared | BLAKE3 of the row, keyed with the head | 32 | also callers who look for rows that collide |

Answers are told apart by bits: rows with 0.0 and -0.0 have different keys.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xxhash
from blake3 import blake3

from mesh.caches.canonical import canonical
from mesh.caches.contents import LARGE, large_rows
from mesh.context import Digests, Parameter
from mesh.errors import InvalidInput, SetupError
from mesh.tensors import Array, Tensors, datatype_of

__all__ = ["KeySpec", "RowKeys", "Trust", "digest_rows"]

Trust = Literal["private", "shared"]
"""Who may choose the rows: only callers who may see each other's answers anyway, or anybody."""

_VERSION = "mesh cache key 2"
"""Changed whenever the same row gets another key, or an entry another meaning."""
_MAX_HEADS = 256
"""Heads that are remembered; one for each combination of shapes, outputs and parameters."""
_COPIED_ROW = 4096
"""Rows up to so many bytes are copied behind their head; longer ones are fed to the digest where they are."""
_LENGTH = struct.Struct("<Q")
_DIGEST = _LENGTH.pack((1 << 64) - 1)
"""Before a digest that stands for a row of BYTES: no element is so long."""
_NO_PARAMETERS: Mapping[str, Parameter] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """What the answers of a node depend on.

    Raises:
        SetupError: It names no class or no input, something twice, an unknown trust, or has arguments that are no plain
            values.
    """

    uses: str
    """The node's class, as `module:Class`."""
    model_digest: bytes = b""
    """The digest of the model file's content; empty where there is no model."""
    version: str = ""
    """What the node declares, for code that changes its answers and is no model."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The `with:` block. Leave out what says where a model lies rather than what is in it."""
    inputs: tuple[str, ...] | None = None
    """The inputs that count, where not all do."""
    parameters: tuple[str, ...] = ()
    """The parameters of a request that count."""
    trust: Trust = "private"
    secret: bytes = field(default=b"", repr=False)
    """Makes keys that nobody can compute who does not know it."""

    def __post_init__(self) -> None:
        if not self.uses:
            raise SetupError("a cache key needs the class of its node")
        if self.inputs is not None and not self.inputs:
            raise SetupError("a cache key that names no input would give every row the same answer")
        for what, names in (("an input", self.inputs or ()), ("a parameter", self.parameters)):
            if len(set(names)) != len(names):
                raise SetupError(f"a cache key names {what} twice: {', '.join(names)}")
        if self.trust not in ("private", "shared"):
            raise SetupError(f"trust is 'private' or 'shared', and not {self.trust!r}")
        canonical(self.arguments)


class RowKeys:
    """Makes the keys of one node's rows, and remembers the heads.

    Args:
        spec: What they depend on.
    """

    __slots__ = ("_digest", "_heads", "_inputs", "_node", "_parameters", "spec")

    def __init__(self, spec: KeySpec) -> None:
        self.spec = spec
        self._node = canonical(
            [_VERSION, spec.trust, spec.secret, spec.uses, spec.model_digest, spec.version, spec.arguments]
        )
        self._inputs = None if spec.inputs is None else tuple(sorted(spec.inputs))
        self._parameters = tuple(sorted(spec.parameters))
        self._heads: dict[object, bytes] = {}
        self._digest = _private if spec.trust == "private" else _shared

    def digest_rows(
        self,
        request: Tensors,
        *,
        parameters: Mapping[str, Parameter] = _NO_PARAMETERS,
        outputs: Sequence[str] = (),
        digests: Digests | None = None,
    ) -> list[bytes]:
        """One key a row of `request`, in order.

        Args:
            request: What the node would be given.
            parameters: Those of the request; what the spec does not name is not looked at.
            outputs: The outputs that were asked for, in any order; none stands for all.
            digests: What the request remembers of large rows.

        Raises:
            InvalidInput: An input that counts is missing, has no axis 0, or other rows than the rest; names it.
        """
        names = sorted(request.keys()) if self._inputs is None else self._inputs
        signature: list[object] = [self._told(parameters), tuple(sorted(outputs)) if outputs else ()]
        arrays: list[Array] = []
        rows = -1
        for name in names:
            array = request.get(name)
            if array is None:
                raise InvalidInput(f"tensor {name!r} is part of the cache key, and missing", tensor=name)
            if array.ndim == 0 or rows not in (-1, array.shape[0]):
                request.rows  # raises  # noqa: B018
            rows = array.shape[0]
            arrays.append(array)
            # The number tells datatypes apart, and costs less to hash than the dtype.
            signature += (name, array.dtype.num, array.shape[1:])
        cached = tuple(signature)
        head = self._heads.get(cached)
        if head is None:
            head = self._remember(cached, names, arrays, outputs)
        parts = [_parts(array, self.spec.trust, digests) for array in arrays]
        return self._digest(head, parts[0] if len(parts) == 1 else [b"".join(row) for row in zip(*parts, strict=True)])

    def _told(self, parameters: Mapping[str, Parameter]) -> bytes:
        # By their bytes: as keys of a dict, 1, 1.0 and True are one.
        if not self._parameters:
            return b""
        return canonical({name: parameters[name] for name in self._parameters if name in parameters})

    def _remember(
        self,
        cached: object,
        names: Sequence[str],
        arrays: list[Array],
        outputs: Sequence[str],
    ) -> bytes:
        inputs = [
            [name, datatype_of(array).name, list(array.shape[1:])] for name, array in zip(names, arrays, strict=True)
        ]
        assert isinstance(cached, tuple)
        head: bytes = blake3(self._node + canonical([cached[0], sorted(outputs), inputs])).digest()
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[cached] = head
        return head


def digest_rows(
    spec: KeySpec,
    request: Tensors,
    *,
    parameters: Mapping[str, Parameter] = _NO_PARAMETERS,
    outputs: Sequence[str] = (),
) -> list[bytes]:
    """The same keys as those of a `RowKeys`, which is the one to keep where rows come again and again."""
    return RowKeys(spec).digest_rows(request, parameters=parameters, outputs=outputs)


Row = bytes | memoryview


def _parts(array: Array, trust: Trust, digests: Digests | None) -> Sequence[Row]:
    """The bytes of each row: of one length each, or, for BYTES, elements with their length before them."""
    rows = array.shape[0]
    if array.dtype.hasobject:
        return _bytes_parts(array, rows, trust, digests)
    if sys.byteorder == "big":  # pragma: no cover - no such machine here
        array = array.astype(array.dtype.newbyteorder("<"))
    size = array.nbytes // rows if rows else 0
    if not size:
        return [b""] * rows
    if size >= LARGE:
        return list(large_rows(array, trust, digests).values())
    data: Row = array.tobytes() if size <= _COPIED_ROW else np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return [data[start : start + size] for start in range(0, rows * size, size)]


def _bytes_parts(array: Array, rows: int, trust: Trust, digests: Digests | None) -> list[Row]:
    flat: list[bytes] = array.ravel().tolist()
    each = len(flat) // rows if rows else 0
    pack = _LENGTH.pack
    may_be_large = sum(map(len, flat)) + _LENGTH.size * each >= LARGE
    large = large_rows(array, trust, digests) if may_be_large else {}
    if each == 1 and not large:
        return [pack(len(item)) + item for item in flat]
    found: list[Row] = []
    for row in range(rows):
        if (digest := large.get(row)) is not None:
            found.append(_DIGEST + digest)
        else:
            found.append(b"".join([pack(len(item)) + item for item in flat[row * each : (row + 1) * each]]))
    return found


def _private(head: bytes, rows: Sequence[Row]) -> list[bytes]:
    if rows and len(rows[0]) <= _COPIED_ROW and type(rows[0]) is bytes:
        digest = xxhash.xxh3_128_digest
        return [digest(head + row) for row in rows]
    found: list[bytes] = []
    for row in rows:
        streamed = xxhash.xxh3_128(head)
        streamed.update(row)
        found.append(streamed.digest())
    return found


def _shared(head: bytes, rows: Sequence[Row]) -> list[bytes]:
    return [blake3(row, key=head).digest() for row in rows]
