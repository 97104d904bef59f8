"""`--input name=value` to tensors, with what the graph says it takes as the guide."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mesh.errors import SetupError
from mesh.signature import TensorSpec
from mesh.tensors import DATATYPES, Array, Tensors

__all__ = ["INPUT_HELP", "read_inputs", "to_jsonable"]

INPUT_HELP = (
    "name=@file (npy, npz or json; any other file is one row of BYTES), name=JSON, or name=text for BYTES; "
    "given again for the same name: more rows; @file.npz alone gives every array it names"
)


def read_inputs(given: Sequence[str], specs: Mapping[str, TensorSpec]) -> Tensors:
    """Make tensors of the datatypes that the graph takes.

    Args:
        given: `name=value` texts, in order; rows of one name are put together.
        specs: What the graph takes.

    Raises:
        SetupError: A text, file or value that cannot be read as what is taken; names it.
    """
    rows: dict[str, list[Array]] = {}
    for text in given:
        if text.startswith("@") and text.endswith(".npz"):
            for name, array in _npz(Path(text[1:])).items():
                rows.setdefault(name, []).append(_fit(name, array, specs))
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise SetupError(f"--input {text!r}: write name=value or name=@file")
        if name not in specs:
            raise SetupError(f"--input {text[:60]!r}: the graph takes {', '.join(specs)}")
        array = (
            _file(name, Path(value[1:]), specs[name]) if value.startswith("@") else _literal(name, value, specs[name])
        )
        rows.setdefault(name, []).append(_fit(name, array, specs))
    try:
        return Tensors({name: np.concatenate(parts) for name, parts in rows.items()})
    except ValueError as error:
        raise SetupError(f"--input: rows of one tensor differ in shape: {error}") from None


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (OSError, ValueError) as error:
        raise SetupError(f"--input @{path}: {_reason(error)}") from None


def _file(name: str, path: Path, spec: TensorSpec) -> Array:
    try:
        match path.suffix:
            case ".npy":
                return np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as opened:
                    return opened[name] if name in opened.files else opened[opened.files[0]]
            case ".json" if spec.datatype != "BYTES":
                return _from_json(name, json.loads(path.read_text()), spec)
            case _:
                return _bytes([path.read_bytes()])
    except (OSError, ValueError, IndexError) as error:
        raise SetupError(f"--input {name}=@{path}: {_reason(error)}") from None


def _literal(name: str, text: str, spec: TensorSpec) -> Array:
    try:
        return _from_json(name, json.loads(text), spec)
    except json.JSONDecodeError:
        if spec.datatype == "BYTES":
            return _bytes([text.encode()])
        raise SetupError(f"--input {name}={text[:40]!r} is no JSON; to read a file write {name}=@file") from None


def _from_json(name: str, value: Any, spec: TensorSpec) -> Array:
    try:
        if spec.datatype == "BYTES":
            return np.asarray(value if isinstance(value, list) else [str(value)], dtype=object)
        return np.asarray(value, dtype=DATATYPES[spec.datatype].dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise SetupError(f"--input {name}: not {spec}: {error}") from None


def _bytes(items: list[bytes]) -> Array:
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made


def _fit(name: str, array: Array, specs: Mapping[str, TensorSpec]) -> Array:
    """The datatype that is taken where nothing is lost, and a batch axis where one row was given without."""
    spec = specs.get(name)
    if spec is None:
        raise SetupError(f"--input {name}: the graph takes {', '.join(specs)}")
    wanted = DATATYPES[spec.datatype].dtype
    if array.dtype != wanted and not array.dtype.hasobject and np.can_cast(array.dtype, wanted, "same_kind"):
        array = array.astype(wanted)
    while array.ndim < len(spec.shape):
        # Sizes of 1 are added where the graph has them, the batch axis in front.
        array = array[..., None] if spec.shape[-1] == 1 and array.ndim else array[None]
    return array


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def to_jsonable(array: Array) -> Any:
    """Nested lists; BYTES as text where they are UTF-8, else as `{"base64": ...}`."""
    if array.dtype.hasobject:
        return [_text(item) if isinstance(item, bytes) else to_jsonable(item) for item in array]
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32)  # BF16, which JSON writers do not know
    return array.tolist()


def _text(item: bytes) -> Any:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(item).decode()}
