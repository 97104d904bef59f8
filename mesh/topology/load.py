"""YAML text to `Topology`: every mistake at once, each with file, line and column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from mesh.errors import Problem, TopologyError
from mesh.topology.caches import nodes_named
from mesh.topology.source import MAX_BYTES, Path, Source, closest, did_you_mean, read, shown
from mesh.topology.spec import STAND_INS, CacheFile, HeaderFile, InputFile, Name, NodeFile, Topology, WorkerFile
from mesh.topology.spec_jobs import MAX_SCHEDULES, JobsFile, ScheduleFile
from mesh.topology.wording import NAME_RULE, complaints, keys_of

__all__ = ["GATEWAY", "MAX_NODES", "LayerTypes", "load", "load_text"]

LayerTypes = Mapping[str, type[BaseModel]]
"""Name in the file -> settings; given by whoever knows the layers, since this package does not."""

SECTIONS = (
    "mesh",
    "name",
    "description",
    "models",
    "engine",
    "limits",
    "inputs",
    "caches",
    "nodes",
    "outputs",
    "placements",
    "jobs",
    "schedules",
)
FROM_FILE = {"from_file": True}
MAX_NODES = 4096
GATEWAY = "gateway"
"""The worker that the placement `processes` puts in front; no node may be called so."""

P = TypeVar("P", bound=BaseModel)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def load(path: FilePath, layers: LayerTypes) -> tuple[Topology, list[Problem]]:
    """Read a topology file.

    Raises:
        TopologyError: The file cannot be read, or is no YAML mapping.
    """
    file = str(path)
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 4)  # a byte order mark is not counted
        text = data.decode()
    except OSError as error:
        raise TopologyError([Problem(file, 1, 1, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        if len(error.object) > MAX_BYTES:  # cut off within a character
            raise TopologyError([Problem(file, 1, 1, f"the file is longer than {MAX_BYTES} bytes")]) from None
        before = error.object[: error.start].decode().replace("\r\n", "\n")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise TopologyError([Problem(file, line, column, "is not UTF-8")]) from None
    return load_text(text, file, layers)


def load_text(text: str, file: str, layers: LayerTypes) -> tuple[Topology, list[Problem]]:
    """Read a topology; returns what is right of it and the mistakes.

    Raises:
        TopologyError: The text is no YAML mapping.
    """
    source = read(text, file)
    if not isinstance(source.value, dict):
        text = "a topology is a mapping that begins with `mesh: v1`"
        raise TopologyError([source.problem((), text), *source.problems])
    return _Reading(source, layers).topology()


class _Reading:
    """One file, section by section."""

    def __init__(self, source: Source, layers: LayerTypes) -> None:
        self._source = source
        self._layers = layers
        self._raw = cast("dict[str, Any]", source.value)
        self._problems = list(source.problems)
        # A section that is there, misspelled, is not told as missing too.
        self._meant = {meant for key in self._raw if key not in SECTIONS and (meant := closest(key, SECTIONS))}
        self._wrong: set[Path] = {(section,) for section in self._meant}

    def topology(self) -> tuple[Topology, list[Problem]]:
        """What is right, and what is wrong."""
        for key in self._raw:
            if key not in SECTIONS:
                text = f"{shown(key)} is no part of a topology"
                self._problem((key,), text, did_you_mean(key, SECTIONS), at_key=True)
        stand_ins = STAND_INS[HeaderFile]
        written = {key: value for key, value in stand_ins.items() if key in self._meant}
        written |= {key: self._raw[key] for key in HeaderFile.model_fields if key in self._raw}
        header = self._part(HeaderFile, written, ()) or HeaderFile.model_validate(stand_ins)
        topology = Topology(self._source, header, wrong=self._wrong)
        topology.inputs = dict(self._inputs())
        topology.caches = dict(self._caches())
        topology.nodes = dict(self._nodes(topology.inputs))
        topology.outputs = dict(self._outputs())
        topology.placements = dict(self._placements())
        if "jobs" in self._raw:
            topology.jobs = self._part(JobsFile, self._raw["jobs"], ("jobs",))
        topology.schedules = dict(self._schedules())
        return topology, self._problems

    def _problem(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        self._problems.append(self._source.problem(path, text, hint, at_key=at_key))

    def _section(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        found: Any = self._raw.get(name)
        if isinstance(found, dict) and (found or not needed):
            return cast("dict[str, Any]", found)
        if name in self._raw:
            entries = " with at least one entry" if needed else ""
            self._problem((name,), f"{name!r} has to be a mapping{entries}", at_key=True)
        elif needed and name not in self._meant:
            self._problem((name,), f"{name!r} is missing")
        if needed or name in self._raw:
            self._wrong.add((name,))
        return {}

    def _inputs(self) -> Iterable[tuple[str, InputFile]]:
        for name, value in self._section("inputs").items():
            path: Path = ("inputs", name)
            self._check_name(name, path)
            part = self._part(InputFile, value, path)
            if part is not None:
                yield name, part

    def _caches(self) -> Iterable[tuple[str, CacheFile]]:
        for name, value in self._section("caches", needed=False).items():
            path: Path = ("caches", name)
            self._check_name(name, path)
            part = self._part(CacheFile, value, path)
            if part is not None:
                yield name, part

    def _nodes(self, inputs: Mapping[str, InputFile]) -> Iterable[tuple[str, NodeFile]]:
        section = self._section("nodes")
        if len(section) > MAX_NODES:
            self._problem(("nodes",), f"{len(section)} nodes; at most {MAX_NODES} are taken", at_key=True)
            self._wrong.add(("nodes",))
            return
        stores = nodes_named(self._raw.get("caches"))
        for name, value in section.items():
            if name in stores and isinstance(value, dict):
                value = {"inputs": {}, **cast("dict[str, Any]", value)}  # it takes no part in the flow
            path: Path = ("nodes", name)
            self._check_name(name, path)
            if name in inputs or ("inputs", name) in self._wrong:
                self._problem(path, f"{name!r} is the name of an input as well", at_key=True)
            if name == GATEWAY:
                self._problem(path, f"{GATEWAY!r} is the name of the worker in front", at_key=True)
            part = self._part(NodeFile, value, path)
            if part is not None:
                self._check_layers(part, path)
                yield name, part

    def _check_layers(self, part: NodeFile, path: Path) -> None:
        for index, entry in enumerate(part.layers):
            here = (*path, "layers", index)
            if len(entry) != 1:
                self._problem(here, "a layer is one name and its settings: `- batch: {max_rows: 32}`")
                continue
            ((name, settings),) = entry.items()
            if name not in self._layers:
                hint = did_you_mean(name, self._layers)
                self._problem((*here, name), f"no layer is called {shown(name)}", hint, at_key=True)
                continue
            # What a layer is set to decides nothing else in the file.
            self._validated(self._layers[name], {} if settings is None else settings, (*here, name))

    def _outputs(self) -> Iterable[tuple[str, str]]:
        for name, value in self._section("outputs").items():
            path: Path = ("outputs", name)
            self._check_name(name, path)
            if isinstance(value, str):
                yield name, value
            else:
                self._problem(path, f"{name!r} has to be node.tensor, not {shown(value)}")
                self._wrong.add(path)

    def _placements(self) -> Iterable[tuple[str, dict[str, WorkerFile]]]:
        for name, value in self._section("placements", needed=False).items():
            path: Path = ("placements", name)
            self._check_name(name, path)
            if name in ("fused", "processes"):
                self._problem(path, f"{name!r} always exists and cannot be written anew", at_key=True)
            if not isinstance(value, dict) or not value:
                self._problem(
                    path, f"placement {shown(name)} has to be a mapping from worker to what it runs", at_key=True
                )
                continue
            workers: dict[str, WorkerFile] = {}
            for worker, inside in cast("dict[str, Any]", value).items():
                self._check_name(worker, (*path, worker))
                part = self._part(WorkerFile, inside, (*path, worker))
                if part is not None:
                    workers[worker] = part
            yield name, workers

    def _schedules(self) -> Iterable[tuple[str, ScheduleFile]]:
        section = self._section("schedules", needed=False)
        if len(section) > MAX_SCHEDULES:
            self._problem(("schedules",), f"{len(section)} schedules; at most {MAX_SCHEDULES} are taken", at_key=True)
            self._wrong.add(("schedules",))
            return
        for name, value in section.items():
            path: Path = ("schedules", name)
            self._check_name(name, path)
            part = self._part(ScheduleFile, value, path)
            if part is not None:
                yield name, part

    def _check_name(self, name: str, path: Path) -> None:
        try:
            _NAME.validate_python(name)
        except ValidationError:
            self._problem(path, f"{shown(name)} is no name: {NAME_RULE}", at_key=True)

    def _part(self, model: type[P], value: object, path: Path) -> P | None:
        """A part of the file, with stand-ins for what is wrong in it; None where nothing is right."""
        found = self._validated(model, value, path)
        if not isinstance(found, list):
            return found
        wrong = {str(steps[0]) for steps in found if steps}
        # A key that is misspelled is not known to be left out.
        wrong |= {meant for key in wrong if (meant := closest(key, keys_of(model)))}
        self._wrong.update((*path, key) for key in wrong)
        if isinstance(value, dict) and () not in found:
            right = {key: inside for key, inside in cast("dict[str, Any]", value).items() if key not in wrong}
            try:
                return model.model_validate(
                    {**STAND_INS.get(model, {}), **right}, by_alias=True, by_name=False, context=FROM_FILE
                )
            except ValidationError:
                pass  # something that has no stand-in
        self._wrong.add(path)
        return None

    def _validated(self, model: type[P], value: object, path: Path) -> P | list[Path]:
        """The part, or the ways to what is wrong in it, which is told."""
        try:
            return model.model_validate(value, strict=True, by_alias=True, by_name=False, context=FROM_FILE)
        except ValidationError as error:
            wrong: list[Path] = [tuple(details["loc"]) for details in error.errors(include_url=False)]
            subject = str(path[-1]) if path else "topology"
            for one in complaints(error, value, subject=subject, model=model):
                self._problem((*path, *one.steps), one.text, one.hint, at_key=one.at_key)
            return wrong
