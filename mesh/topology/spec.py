"""What a topology file may say: the shape of each part, held by pydantic.

`Topology` is what the file says, part by part. A part that is wrong is left out, or replaced by a stand-in, and
remembered as wrong: so one mistake does not hide the next, nor cause a dozen others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    field_validator,
)

from mesh.tensors import DATATYPES
from mesh.topology.source import Path, Source, did_you_mean, shown
from mesh.topology.spec_jobs import JOB_STAND_INS, JobsFile, ScheduleFile
from mesh.units import Duration, Size

__all__ = [
    "NAME_PATTERN",
    "STAND_INS",
    "CacheFile",
    "HeaderFile",
    "InputFile",
    "JoinFile",
    "LimitsFile",
    "Name",
    "NodeFile",
    "Reference",
    "SplitFile",
    "Topology",
    "WorkerFile",
]

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Names of topologies, nodes, inputs, workers: lower case, digits, `_` and `-`, at most 63 characters, no dot."""
Uses = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=400)]
"""`module:Class`."""

# What refers to something else is looked up, so an error can say what there is; its form is for editors only.
Reference = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": r"^[a-z][a-z0-9_-]{0,62}(\.[A-Za-z_][\w./-]{0,127})?$"})
]
"""`node.tensor`, or the name of an input of the graph."""
NodeName = Annotated[str, WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""The name of a node that is written elsewhere in the file."""

_ADDRESS = re.compile(r"grpc://(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):(\d{1,5})|unix:(/[^\s/]\S*)")
MAX_SOCKET_PATH_BYTES = 100
"""Some operating systems take no more for a unix socket than 103."""


def _address(value: str) -> str:
    matched = _ADDRESS.fullmatch(value)
    if matched is None:
        raise ValueError(f"{shown(value)} is no address: write grpc://host:port or unix:/absolute/path")
    if matched[2] and int(matched[2]) > 65535:
        raise ValueError(f"port {matched[2]} is past the last one, 65535")
    if matched[3] and len(matched[3].encode()) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"the path of a unix socket has at most {MAX_SOCKET_PATH_BYTES} bytes")
    return value


Address = Annotated[
    str,
    AfterValidator(_address),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(grpc://(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):\d{1,5}|unix:/[^\s/]\S{0,98})$"}
    ),
]
"""`grpc://host:port` or `unix:/absolute/path`."""


MAX_BRANCHES = 1024
MAX_SIZE = 1 << 40
"""Most that one dimension may be."""


class Part(BaseModel):
    """A part of the file: no key that is not known, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LimitsFile(Part):
    """Bounds that hold in every placement."""

    max_message: Annotated[Size, Field(gt=0, le=1 << 30, description="Most tensor bytes on one edge.")] = 64 << 20
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000, description="Most calls a worker takes on at once.")] = 1024
    default_timeout: Annotated[
        Duration, Field(gt=0, le=86400, description="The deadline of a request that comes without one.")
    ] = 30.0


class InputFile(Part):
    """One tensor that the graph takes."""

    datatype: Annotated[
        str,
        Field(description="As in the Open Inference Protocol.", json_schema_extra={"enum": list(DATATYPES)}),
    ]
    shape: Annotated[
        list[int],
        Field(
            min_length=1,
            max_length=32,
            description="-1 where any size is taken; the first is the batch, so -1.",
            json_schema_extra={
                "prefixItems": [{"const": -1}],
                "items": {"type": "integer", "minimum": -1, "maximum": MAX_SIZE, "not": {"const": 0}},
            },
        ),
    ]

    @field_validator("datatype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in DATATYPES:
            of_numpy = [datatype.name for datatype in DATATYPES.values() if datatype.dtype.name == value.lower()]
            hint = f"did you mean {of_numpy[0]!r}?" if of_numpy else did_you_mean(value, DATATYPES)
            raise ValueError(f"{shown(value)} is no datatype; {hint}")
        return value

    @field_validator("shape")
    @classmethod
    def _batched(cls, value: list[int]) -> list[int]:
        if value[0] != -1:
            raise ValueError("the first dimension has to be -1: axis 0 is the batch")
        if any(size < -1 or size == 0 or size > MAX_SIZE for size in value):
            raise ValueError(f"a dimension is -1, where any size is taken, or a size from 1 to {MAX_SIZE}")
        return value


def _form(value: object) -> str | None:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else None


class SplitFile(Part):
    """One arm of a split: a share of the rows."""

    group: Annotated[Name, Field(description="The split that it is an arm of; its arms share all rows.")]
    weight: Annotated[float, Field(gt=0, le=100, description="Per cent of the rows; those of a group sum to 100.")]
    by: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="What decides: parameters.NAME, or an edge; the content of its inputs if left out.",
        ),
    ] = None


class JoinFile(Part):
    """How an aggregate waits for its branches, where it does not need them all."""

    quorum: Annotated[int | None, Field(ge=1, le=MAX_BRANCHES, description="Branches that have to be there.")] = None
    required: Annotated[
        list[NodeName] | None,
        Field(description="Branches without which there is no answer; all, unless quorum or deadline is given."),
    ] = None
    deadline: Annotated[
        Duration | None,
        Field(
            gt=0, le=86400, description="From the request's arrival, how long to wait for more than has to be there."
        ),
    ] = None
    timeouts: Annotated[
        dict[NodeName, Annotated[Duration, Field(gt=0, le=86400)]],
        Field(description="By branch, from the request's arrival, by when it has to be there."),
    ] = {}


def _join_form(value: object) -> str | None:
    return "mapping" if isinstance(value, dict | JoinFile) else "text" if isinstance(value, str) else None


class NodeFile(Part):
    """One node."""

    uses: Annotated[Uses, Field(description="The class that implements it, as module:Class.")]
    arguments: Annotated[
        dict[str, Any], Field(alias="with", description="What its constructor is given; has to fit its signature.")
    ] = {}
    inputs: Annotated[
        Annotated[dict[str, Reference], Tag("mapping")] | Annotated[list[NodeName], Tag("list")],
        Discriminator(
            _form,
            custom_error_type="inputs_form",
            custom_error_message="has to be a mapping {tensor: node.tensor}, or for an aggregate a list of nodes",
        ),
        Field(
            description="By tensor what feeds it, as node.tensor or a graph input; for an aggregate a list of nodes."
        ),
    ]
    when: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            description="A condition, row by row: it runs on those for which it holds. See docs/expressions.md.",
        ),
    ] = None
    split: Annotated[SplitFile | None, Field(description="It runs on its share of the rows only.")] = None
    shadow: Annotated[
        NodeName | None,
        Field(description="It runs beside the node of this name, is compared with it, and never waited for."),
    ] = None
    join: Annotated[
        Annotated[JoinFile, Tag("mapping")] | Annotated[Literal["all", "first"], Tag("text")],
        Discriminator(
            _join_form,
            custom_error_type="join_form",
            custom_error_message="has to be all, first, or a mapping such as {quorum: 2}",
        ),
        Field(description="For an aggregate: how it waits for its branches."),
    ] = "all"
    layers: Annotated[
        list[dict[str, Any]], Field(max_length=8, description="What wraps it, outermost first; one key each.")
    ] = []


class CacheFile(Part):
    """Where cache layers keep what their nodes answered."""

    backend: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            description="memory://, redis://host:port/db, redis+unix:/path or mesh://node.",
        ),
    ] = None
    tiers: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]] | None,
        Field(min_length=2, max_length=8, description="Several backends in place of one, the fastest first."),
    ] = None
    max_bytes: Annotated[
        Size, Field(ge=4096, le=1 << 44, description="The most that memory:// takes in one worker.")
    ] = 256 << 20
    max_value: Annotated[Size, Field(gt=0, le=1 << 30, description="The largest answer to one row that is kept.")] = (
        16 << 20
    )
    timeout: Annotated[
        Duration, Field(gt=0, le=60, description="How long a request waits for a backend outside its worker.")
    ] = 0.1
    trust: Annotated[
        Literal["private", "shared"],
        Field(description="shared where callers who do not trust each other choose the rows: a stronger digest."),
    ] = "private"


class WorkerFile(Part):
    """One worker of a placement."""

    nodes: Annotated[
        list[NodeName],
        Field(
            description="The nodes it runs; none for a first worker that is only the gateway.",
            json_schema_extra={"uniqueItems": True},
        ),
    ]
    address: Annotated[
        Address | None, Field(description="Where it listens; a unix socket of this host if left out.")
    ] = None
    replicas: Annotated[int, Field(ge=1, le=64, description="Processes that run the same nodes.")] = 1


class HeaderFile(Part):
    """The parts of the file that are not collections."""

    mesh: Annotated[Literal["v1"], Field(description="The version of this language.")]
    name: Annotated[Name, Field(description="What callers name the graph by.")]
    description: Annotated[str, Field(max_length=2000, description="What it is for.")] = ""
    models: Annotated[str, Field(min_length=1, description="The model root, relative to this file.")] = "."
    engine: Annotated[
        Literal["wire", "grpcio"], Field(description="What speaks gRPC: mesh's own wire, or the C core.")
    ] = "wire"
    limits: Annotated[LimitsFile, Field(description="Bounds that hold in every placement.")] = LimitsFile()


STAND_INS: dict[type[BaseModel], dict[str, Any]] = {
    HeaderFile: {"mesh": "v1", "name": "unknown"},
    NodeFile: {"uses": "unknown:Unknown", "inputs": {}},
    WorkerFile: {"nodes": []},
    **JOB_STAND_INS,
}
"""What is put where a key that has to be there is wrong or missing, so that the other keys can still be read."""


@dataclass(slots=True)
class Topology:
    """What a file says, as far as it says it rightly."""

    source: Source
    header: HeaderFile
    inputs: dict[str, InputFile] = field(default_factory=dict[str, InputFile])
    caches: dict[str, CacheFile] = field(default_factory=dict[str, CacheFile])
    nodes: dict[str, NodeFile] = field(default_factory=dict[str, NodeFile])
    outputs: dict[str, str] = field(default_factory=dict[str, str])
    placements: dict[str, dict[str, WorkerFile]] = field(default_factory=dict[str, dict[str, WorkerFile]])
    jobs: JobsFile | None = None
    schedules: dict[str, ScheduleFile] = field(default_factory=dict[str, ScheduleFile])
    wrong: set[Path] = field(default_factory=set[Path])
    """Parts of the file that were not understood, by their way; what hangs on them is not blamed for it."""

    def written(self, section: str) -> list[str]:
        """The keys of a section as the file has them, right or wrong."""
        found: Any = self.source.value.get(section)
        return list(cast("dict[str, Any]", found)) if isinstance(found, dict) else []

    def doubts(self, *path: str | int) -> bool:
        """Whether a part, or one that it is in, was not understood."""
        return any(path[:length] in self.wrong for length in range(1, len(path) + 1))
