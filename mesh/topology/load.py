"""YAML text to `Topology`: every mistake at once, each with file, line and column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mesh.errors import Problem, TopologyError
from mesh.topology.source import Path, Source, did_you_mean, read
from mesh.topology.spec import HeaderFile, InputFile, LimitsFile, Name, NodeFile, Reference, Topology, WorkerFile

__all__ = ["LayerTypes", "load", "load_text", "problems_of"]

LayerTypes = Mapping[str, type[BaseModel]]
"""Name in the file -> settings; given by whoever knows the layers, since this package does not."""

SECTIONS = ("mesh", "name", "description", "models", "limits", "inputs", "nodes", "outputs", "placements")
FROM_FILE = {"from_file": True}
MAX_NODES = 4096

P = TypeVar("P", bound=BaseModel)
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)


def load(path: FilePath, layers: LayerTypes) -> tuple[Topology, list[Problem]]:
    """Read a topology file.

    Raises:
        TopologyError: The file cannot be read, is no YAML, or has no header to go on from.
    """
    file = str(path)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise TopologyError([Problem(file, 1, 1, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TopologyError([Problem(file, line, 1, "is not UTF-8")]) from None
    return load_text(text, file, layers)


def load_text(text: str, file: str, layers: LayerTypes) -> tuple[Topology, list[Problem]]:
    """Read a topology; returns what is right of it and the mistakes.

    Raises:
        TopologyError: The text is no YAML, or has no header to go on from.
    """
    source = read(text, file)
    if not isinstance(source.value, dict):
        raise TopologyError([source.problem((), "a topology is a mapping that begins with `mesh: v1`")])
    raw = cast("dict[str, Any]", source.value)
    problems: list[Problem] = [
        source.problem((key,), f"{key!r} is no part of a topology", did_you_mean(key, SECTIONS), at_key=True)
        for key in raw
        if key not in SECTIONS
    ]
    parts = ("mesh", "name", "description", "models", "limits")
    header = _part(HeaderFile, {key: raw[key] for key in parts if key in raw}, (), source, problems)
    topology = Topology(source, header or HeaderFile.model_construct(mesh="v1", name="unknown", limits=LimitsFile()))
    _inputs(raw, topology, problems)
    _nodes(raw, topology, layers, problems)
    _outputs(raw, topology, problems)
    _placements(raw, topology, problems)
    return topology, problems


def _section(
    raw: dict[str, Any], name: str, source: Source, problems: list[Problem], *, needed: bool
) -> dict[str, Any]:
    found: Any = raw.get(name)
    if isinstance(found, dict) and (found or not needed):
        return cast("dict[str, Any]", found)
    if name in raw:
        problems.append(source.problem((name,), f"{name!r} has to be a mapping with at least one entry", at_key=True))
    elif needed:
        problems.append(source.problem((name,), f"{name!r} is missing"))
    return {}


def _inputs(raw: dict[str, Any], topology: Topology, problems: list[Problem]) -> None:
    for name, value in _section(raw, "inputs", topology.source, problems, needed=True).items():
        path: Path = ("inputs", name)
        part = _part(InputFile, value, path, topology.source, problems)
        if part is None or not _named(name, path, topology.source, problems):
            topology.broken.add(name)
        else:
            topology.inputs[name] = part


def _nodes(raw: dict[str, Any], topology: Topology, layers: LayerTypes, problems: list[Problem]) -> None:
    source = topology.source
    section = _section(raw, "nodes", source, problems, needed=True)
    if len(section) > MAX_NODES:
        problems.append(source.problem(("nodes",), f"{len(section)} nodes; at most {MAX_NODES} are taken", at_key=True))
        return
    for name, value in section.items():
        path: Path = ("nodes", name)
        before = len(problems)
        part = _part(NodeFile, value, path, source, problems)
        _named(name, path, source, problems)
        if name in topology.inputs or name in topology.broken:
            problems.append(source.problem(path, f"{name!r} is the name of an input as well", at_key=True))
        if name == GATEWAY:
            problems.append(source.problem(path, f"{GATEWAY!r} is the name of the worker in front", at_key=True))
        if part is not None:
            _layers(part, path, layers, source, problems)
        if len(problems) > before:
            topology.broken.add(name)
        if part is not None:
            topology.nodes[name] = part


GATEWAY = "gateway"
"""The worker that the placement `processes` puts in front; no node may be called so."""


def _layers(part: NodeFile, path: Path, layers: LayerTypes, source: Source, problems: list[Problem]) -> None:
    for index, entry in enumerate(part.layers):
        here = (*path, "layers", index)
        if len(entry) != 1:
            problems.append(source.problem(here, "a layer is one name and its settings: `- batch: {max_rows: 32}`"))
            continue
        ((name, settings),) = entry.items()
        if name not in layers:
            text = f"no layer is called {name!r}"
            problems.append(source.problem((*here, name), text, did_you_mean(name, layers), at_key=True))
            continue
        _part(layers[name], {} if settings is None else settings, (*here, name), source, problems)


def _outputs(raw: dict[str, Any], topology: Topology, problems: list[Problem]) -> None:
    source = topology.source
    for name, value in _section(raw, "outputs", source, problems, needed=True).items():
        path: Path = ("outputs", name)
        if not _named(name, path, source, problems):
            continue
        try:
            topology.outputs[name] = _REFERENCE.validate_python(value)
        except ValidationError:
            problems.append(source.problem(path, f"{value!r} is not `node.tensor`"))


def _placements(raw: dict[str, Any], topology: Topology, problems: list[Problem]) -> None:
    source = topology.source
    for name, value in _section(raw, "placements", source, problems, needed=False).items():
        path: Path = ("placements", name)
        before = len(problems)
        _named(name, path, source, problems)
        if name in ("fused", "processes"):
            problems.append(source.problem(path, f"{name!r} always exists and cannot be written anew", at_key=True))
        if not isinstance(value, dict) or not value:
            problems.append(source.problem(path, "a placement is a mapping from worker to what it runs"))
            continue
        workers: dict[str, WorkerFile] = {}
        for worker, inside in cast("dict[str, Any]", value).items():
            part = _part(WorkerFile, inside, (*path, worker), source, problems)
            if _named(worker, (*path, worker), source, problems) and part is not None:
                workers[worker] = part
        if len(problems) == before:
            topology.placements[name] = workers


def _named(name: str, path: Path, source: Source, problems: list[Problem]) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        text = f"{name[:80]!r} is no name: lower case letters, digits, '_' and '-', a letter first, at most 63"
        problems.append(source.problem(path, text, at_key=True))
        return False
    return True


def _part(model: type[P], value: object, path: Path, source: Source, problems: list[Problem]) -> P | None:
    try:
        return model.model_validate(value, context=FROM_FILE)
    except ValidationError as error:
        problems.extend(problems_of(error, model, path, source))
        return None


def problems_of(error: ValidationError, model: type[BaseModel] | None, path: Path, source: Source) -> list[Problem]:
    """What pydantic found, in our words and at the place in the file."""
    found: list[Problem] = []
    for details in error.errors(include_url=False):
        # pydantic names the member of a union (`list[...]`) on the way; only the member that was meant is told of.
        place = tuple(step for step in details["loc"] if "[" not in str(step))
        if len(place) < len(details["loc"]) and details["type"] in _NOT_MEANT:
            meant = isinstance(details["input"], dict | list)
            if meant:
                continue
            found.append(
                source.problem((*path, *place), f"has to be a mapping, or a list, not {_shown(details['input'])}")
            )
        else:
            found.append(_told({**details, "loc": place}, model, path, source))
    return list(dict.fromkeys(found))


_NOT_MEANT = ("dict_type", "list_type")


def _told(details: ErrorDetails, model: type[BaseModel] | None, path: Path, source: Source) -> Problem:
    place = (*path, *details["loc"])
    last = str(details["loc"][-1]) if details["loc"] else ""
    match details["type"]:
        case "extra_forbidden":
            known = _keys_at(model, details["loc"][:-1])
            return source.problem(place, f"{last!r} is not taken here", did_you_mean(last, known), at_key=True)
        case "missing":
            return source.problem(place, f"{last!r} is missing")
        case "model_type" | "dict_type" | "model_attributes_type":
            return source.problem(place, f"has to be a mapping, not {_shown(details['input'])}")
        case "value_error":
            return source.problem(place, details["msg"].removeprefix("Value error, "))
        case "string_pattern_mismatch":
            return source.problem(place, f"{_shown(details['input'])} is not well formed", _example(last, details))
        case _:
            text = details["msg"][:1].lower() + details["msg"][1:]
            return source.problem(place, f"{text}, not {_shown(details['input'])}")


def _example(last: str, details: ErrorDetails) -> str:
    examples = {"uses": "module:Class", "address": "grpc://host:port or unix:/absolute/path", "name": "my-mesh"}
    if last in examples:
        return f"as in {examples[last]}"
    return "as in node.tensor, or the name of an input" if "inputs" in details["loc"] else ""


def _keys_at(model: type[BaseModel] | None, place: tuple[str | int, ...]) -> list[str]:
    for step in place:
        field = model.model_fields.get(str(step)) if model else None
        inner = field.annotation if field else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
