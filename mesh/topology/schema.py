"""The JSON Schema of topology files, for editors that complete and check as you type.

It knows the shape of the file: sections, keys, types, bounds, the form of names and units. What only the compiler can
tell, such as whether a name exists or a tensor fits, it leaves alone. What the compiler takes, the schema takes.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from mesh.topology.load import GATEWAY, MAX_NODES, LayerTypes
from mesh.topology.spec import NAME_PATTERN, CacheFile, HeaderFile, InputFile, NodeFile, WorkerFile
from mesh.topology.spec_jobs import MAX_SCHEDULES, JobsFile, ScheduleFile
from mesh.units import Duration, Size, format_duration, format_size

__all__ = ["json_schema"]

Schema = dict[str, Any]

_DURATION = TypeAdapter(Duration).json_schema()["pattern"]
_SIZE = TypeAdapter(Size).json_schema()["pattern"]


def json_schema(layers: LayerTypes) -> Schema:
    """The schema, of draft 2020-12.

    Args:
        layers: Name in the file -> settings of each layer that a node may have.
    """
    parts: list[type[BaseModel]] = [HeaderFile, InputFile, CacheFile, NodeFile, WorkerFile, JobsFile, ScheduleFile]
    parts += layers.values()
    refs, made = models_json_schema([(part, "validation") for part in parts], ref_template="#/$defs/{model}")
    ref = {part: refs[part, "validation"] for part in parts}
    defs: Schema = _tidied(made["$defs"])
    header = defs.pop(_def(ref[HeaderFile]))
    defs["Layer"] = {
        "description": "One layer: its name and its settings.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {name: ref[layer] for name, layer in layers.items()},
    }
    for layer in layers.values():
        if not any(one.is_required() for one in layer.model_fields.values()):
            # It may be written without any settings: `- batch:`.
            defs[_def(ref[layer])]["type"] = ["object", "null"]
    node = defs[_def(ref[NodeFile])]
    node["properties"]["layers"]["items"] = {"$ref": "#/$defs/Layer"}
    by_tensor, branches = node["properties"]["inputs"]["oneOf"]
    by_tensor |= {"minProperties": 1}
    # A cache node has no inputs, and nothing else that is for rows.
    node["required"].remove("inputs")
    of_rows = ["when", "split", "shadow", "join", "layers"]
    node["anyOf"] = [{"required": ["inputs"]}, {"not": {"anyOf": [{"required": [key]} for key in of_rows]}}]
    cache = defs[_def(ref[CacheFile])]
    cache["oneOf"] = [{"required": ["backend"]}, {"required": ["tiers"]}]
    branches |= {"minItems": 1, "uniqueItems": True}
    reference = by_tensor["additionalProperties"]
    placement = _mapping("Worker -> what it runs. The first is the gateway.", ref[WorkerFile])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mesh topology",
        "description": "A graph of nodes, and where each of them runs.",
        "type": "object",
        "additionalProperties": False,
        "required": ["mesh", "name", "inputs", "nodes", "outputs"],
        # Where there is no cache, there is no cache node.
        "anyOf": [
            {"required": ["caches"]},
            {"properties": {"nodes": {"additionalProperties": {"required": ["inputs"]}}}},
        ],
        "properties": {
            **header["properties"],
            "inputs": _mapping("What the graph takes, by name.", ref[InputFile]),
            "caches": _mapping("Where cache layers keep things, by name.", ref[CacheFile], may_be_empty=True),
            "nodes": _mapping("The nodes, by name.", ref[NodeFile], besides=(GATEWAY,)) | {"maxProperties": MAX_NODES},
            "outputs": _mapping("What the graph gives: by name the edge, as node.tensor.", reference),
            "placements": _mapping(
                "Who runs what, by name. `fused` and `processes` always exist.",
                placement,
                besides=("fused", "processes"),
                may_be_empty=True,
            ),
            "jobs": ref[JobsFile] | {"description": "How jobs are stored, tried and kept; without it there are none."},
            "schedules": _mapping("Batches that begin by themselves, by name.", ref[ScheduleFile], may_be_empty=True)
            | {"maxProperties": MAX_SCHEDULES},
        },
        "dependentRequired": {"schedules": ["jobs"]},
        "$defs": defs,
    }


def _def(ref: Schema) -> str:
    return ref["$ref"].rpartition("/")[2]


def _mapping(description: str, values: Schema, *, besides: tuple[str, ...] = (), may_be_empty: bool = False) -> Schema:
    """A mapping from names to `values`; names in `besides` are taken."""
    names: Schema = {"pattern": NAME_PATTERN} | ({"not": {"enum": list(besides)}} if besides else {})
    made: Schema = {
        "description": description,
        "type": "object",
        "propertyNames": names,
        "additionalProperties": values,
    }
    return made if may_be_empty else made | {"minProperties": 1}


def _tidied(schema: Any) -> Any:
    """Without pydantic's titles and empty defaults; descriptions in one paragraph; quantities as a file writes them."""
    if isinstance(schema, list):
        return [_tidied(one) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    made: Schema = {}
    for key, value in cast("Schema", schema).items():
        if key != "title" or isinstance(value, dict):  # a key of the file may be called so
            made[key] = _tidied(value)
    described, default = made.get("description"), made.get("default")
    if isinstance(described, str):
        made["description"] = " ".join(described.partition("\n\n")[0].split())
    if made.get("pattern") == _DURATION and "default" in made:
        made["default"] = format_duration(made["default"])
    elif made.get("pattern") == _SIZE and "default" in made:
        made["default"] = format_size(made["default"])
    elif default in (None, "", [], {}) or isinstance(default, dict):
        made.pop("default", None)
    match made.get("anyOf"):
        case [{"type": str(kind), **inside}, {"type": "null"}]:
            # One form tells an editor more than a choice of two.
            del made["anyOf"]
            if "enum" in inside:
                inside["enum"] = [*inside["enum"], None]
            made |= {**inside, "type": [kind, "null"]}
        case _:
            pass
    return made
