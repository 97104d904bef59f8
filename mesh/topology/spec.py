"""What a topology file may say: the shape of each part, held by pydantic.

`Topology` is what the file says, part by part; parts that are wrong are left out and remembered as such, so that one
mistake does not hide the next, nor cause a dozen others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from mesh.tensors import DATATYPES
from mesh.topology.source import Source
from mesh.units import Duration, Size

__all__ = [
    "HeaderFile",
    "InputFile",
    "LimitsFile",
    "Name",
    "NodeFile",
    "Reference",
    "Topology",
    "WorkerFile",
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""Names of topologies, nodes, inputs, workers: lower case, digits, `_` and `-`, at most 63 characters, no dot."""
Reference = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}(\.[A-Za-z_][\w./-]{0,127})?$")]
"""`node.tensor`, or the name of an input of the graph."""
Uses = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""`module:Class`."""
Address = Annotated[str, StringConstraints(pattern=r"^(grpc://[^\s/:]+:\d{1,5}|unix:/[^\s]{1,100})$")]
"""`grpc://host:port` or `unix:/absolute/path`."""


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

    datatype: Annotated[str, Field(description="As in the Open Inference Protocol.")]
    shape: Annotated[list[int], Field(min_length=1, max_length=32, description="-1 where any size is taken.")]

    @field_validator("datatype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in DATATYPES:
            raise ValueError(f"{value!r} is none of {', '.join(DATATYPES)}")
        return value

    @field_validator("shape")
    @classmethod
    def _batched(cls, value: list[int]) -> list[int]:
        if value[0] != -1:
            raise ValueError("the first dimension has to be -1: axis 0 is the batch")
        if any(size < -1 or size == 0 or size > 1 << 40 for size in value):
            raise ValueError("a dimension is -1 or a size above 0")
        return value


class NodeFile(Part):
    """One node."""

    uses: Annotated[Uses, Field(description="The class that implements it, as module:Class.")]
    arguments: Annotated[
        dict[str, Any], Field(alias="with", description="What its constructor is given; has to fit its signature.")
    ] = {}
    inputs: Annotated[
        dict[str, Reference] | list[Name],
        Field(
            description="By tensor what feeds it, as node.tensor or a graph input; for an aggregate a list of nodes."
        ),
    ]
    layers: Annotated[
        list[dict[str, Any]], Field(max_length=8, description="What wraps it, outermost first; one key each.")
    ] = []


class WorkerFile(Part):
    """One worker of a placement."""

    nodes: Annotated[list[Name], Field(description="The nodes it runs; none for a worker that is only the gateway.")]
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
    limits: Annotated[LimitsFile, Field(description="Bounds that hold in every placement.")] = LimitsFile()


@dataclass(slots=True)
class Topology:
    """What a file says, as far as it says it rightly."""

    source: Source
    header: HeaderFile
    inputs: dict[str, InputFile] = field(default_factory=dict[str, InputFile])
    nodes: dict[str, NodeFile] = field(default_factory=dict[str, NodeFile])
    outputs: dict[str, str] = field(default_factory=dict[str, str])
    placements: dict[str, dict[str, WorkerFile]] = field(default_factory=dict[str, dict[str, WorkerFile]])
    broken: set[str] = field(default_factory=set[str])
    """Inputs and nodes that are in the file but were not understood; what names them is not blamed."""
