"""`--input name=value` to tensors, with what the graph says it takes as the guide."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mesh.cli.jsonable import array_of_json
from mesh.errors import InvalidInput, SetupError
from mesh.signature import TensorSpec
from mesh.tensors import DATATYPES, Array, Tensors

__all__ = ["INPUT_HELP", "read_inputs"]

INPUT_HELP = (
    "name=@file (npy, npz or json; any other file is one row of BYTES), name=JSON, or name=text for BYTES; "
    "given again for the same name: more rows; @file.npz alone gives every array it names"
)
MAX_FILE_BYTES = 1 << 30
_NOT_READ = (OSError, ValueError, EOFError, zipfile.BadZipFile)
"""What reading a file may raise; numpy raises EOFError for an empty one."""


def read_inputs(given: Sequence[str], specs: Mapping[str, TensorSpec]) -> Tensors:
    """Make tensors of the datatypes that the graph takes.

    Args:
        given: `name=value` texts, in order; rows of one name are put together.
        specs: What the graph takes.

    Raises:
        SetupError: A text, file or value that cannot be read as what is taken, or an input that is missing; names it.
    """
    rows: dict[str, list[Array]] = {}
    for text in given:
        for name, array in _read(text, specs).items():
            rows.setdefault(name, []).append(array)
    if missing := [name for name in specs if name not in rows]:
        wanted = ", ".join(f"{name}: {specs[name]}" for name in missing)
        raise SetupError(f"--input is missing for {wanted}; write {missing[0]}=VALUE or {missing[0]}=@FILE")
    tensors: dict[str, Array] = {}
    for name, parts in rows.items():
        try:
            tensors[name] = np.concatenate(parts)
        except ValueError:
            shapes = " and ".join(str(list(part.shape)) for part in parts)
            raise SetupError(f"--input {name}: its rows differ in shape: {shapes}") from None
    try:
        return Tensors(tensors)
    except InvalidInput as error:
        raise SetupError(f"--input: {error}") from None


def _read(text: str, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """What one `--input` gives."""
    if text.startswith("@"):
        if not text.endswith(".npz"):
            raise SetupError(f"--input {text}: only an .npz file names its arrays; write name={text}")
        found = _loaded(text, Path(text[1:]))
        return {name: _fit(text, array, _spec(text, name, specs)) for name, array in found.items()}
    name, equals, value = text.partition("=")
    shown = f"{name}={value if len(value) <= 40 else f'{value[:37]}...'}"
    if not equals or not name:
        raise SetupError(f"--input {text[:60]!r}: write name=VALUE or name=@FILE; the graph takes {', '.join(specs)}")
    spec = _spec(shown, name, specs)
    array = _file(shown, name, Path(value[1:]), spec) if value.startswith("@") else _literal(shown, value, spec)
    return {name: _fit(shown, array, spec)}


def _spec(shown: str, name: str, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    if name not in specs:
        raise SetupError(f"--input {shown}: there is no input {name!r}; the graph takes {', '.join(specs)}")
    return specs[name]


def _file(shown: str, name: str, path: Path, spec: TensorSpec) -> Array:
    match path.suffix:
        case ".npy":
            return _loaded(shown, path)[""]
        case ".npz":
            found = _loaded(shown, path)
            if name not in found and len(found) != 1:
                raise SetupError(
                    f"--input {shown}: the file has no array {name!r}; it has {', '.join(found) or 'none'}"
                )
            return found[name] if name in found else next(iter(found.values()))
        case ".json" if spec.datatype != "BYTES":
            return _from_json(shown, _contents(shown, path), spec)
        case _:
            array = np.empty(1, dtype=object)
            array[0] = _contents(shown, path)
            return array


def _contents(shown: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SetupError(f"--input {shown}: {error.strerror or error}") from None
    if len(found) > MAX_FILE_BYTES:
        raise SetupError(f"--input {shown}: more than {MAX_FILE_BYTES} bytes, which no call carries")
    return found


def _loaded(shown: str, path: Path) -> dict[str, Array]:
    """The arrays of a numpy file; that of an .npy file has no name."""
    try:
        with path.open("rb") as file:
            found: Any = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"": found}
            return {name: found[name] for name in found.files}
    except _NOT_READ as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "not a numpy file, or it is broken"
        )
        raise SetupError(f"--input {shown}: {reason}") from None


def _literal(shown: str, text: str, spec: TensorSpec) -> Array:
    if spec.datatype != "BYTES":
        return _from_json(shown, text, spec)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    is_json = isinstance(value, list | str) or (isinstance(value, dict) and value.keys() == {"base64"})
    # Anything else that happens to be JSON (a number, an object) is the text itself, in the bytes that were typed.
    return _array(shown, value if is_json else [_typed(text)], spec)


def _typed(text: str) -> bytes:
    return os.fsencode(text)


def _from_json(shown: str, text: str | bytes, spec: TensorSpec) -> Array:
    try:
        value = json.loads(text)
    except ValueError as error:
        hint = "; to read a file write name=@FILE" if isinstance(text, str) else ""
        raise SetupError(f"--input {shown}: no JSON: {error}{hint}") from None
    return _array(shown, value, spec)


def _array(shown: str, value: Any, spec: TensorSpec) -> Array:
    try:
        return array_of_json(value, spec.datatype)
    except ValueError as error:
        raise SetupError(f"--input {shown}: not {spec}: {error}") from None


def _fit(shown: str, array: Array, spec: TensorSpec) -> Array:
    """The datatype that is taken where nothing is lost but digits, and axes of 1 that were left out."""
    wanted = DATATYPES[spec.datatype].dtype
    if array.dtype != wanted and array.dtype.kind in "iuf" and wanted.kind in "iufV":
        array = _cast(shown, array, wanted)
    sizes = spec.shape[1:]
    if array.size == 0 and array.ndim == 1 and sizes:
        # An empty list: no rows.
        return np.empty((0, *(size if isinstance(size, int) else 0 for size in sizes)), array.dtype)
    while array.ndim < len(spec.shape):
        # The batch axis goes in front; behind go sizes of 1 where the graph has them.
        array = array[..., None] if sizes and sizes[-1] == 1 and array.ndim else array[None]
    return array


def _cast(shown: str, array: Array, wanted: Any) -> Array:
    if array.dtype.kind == "f" and wanted.kind in "iu":
        return array  # the mesh will refuse it: which fraction to drop is not ours to say
    with np.errstate(over="ignore", invalid="ignore"):
        made: Array = array.astype(wanted)
    holds = made == array if wanted.kind in "iu" else np.isfinite(made) | ~np.isfinite(array)
    if not holds.all():
        raise SetupError(f"--input {shown}: some of its numbers are beyond what {wanted.name} holds")
    return made
