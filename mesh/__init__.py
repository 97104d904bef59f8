"""Mesh: a gRPC inference mesh. What a node's author needs; everything else has its own package."""

from mesh.context import Context
from mesh.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    MeshError,
    NodeContractError,
    NodeFailed,
    NotFound,
    Overloaded,
    PlacementError,
    RequestError,
    SetupError,
    TopologyError,
    Unavailable,
)
from mesh.handler import Branches, Handler, Layer, stack
from mesh.keeping import CacheEntry, CacheUse
from mesh.node import Aggregate, Cache, ModelFile, Needs, Node, Predict, Preprocess
from mesh.partial import rows_failed
from mesh.signature import Signature, TensorSpec
from mesh.tensors import DATATYPES, Array, Datatype, Tensors
from mesh.units import Duration, Size

__all__ = [
    "DATATYPES",
    "Aggregate",
    "Array",
    "Branches",
    "Cache",
    "CacheEntry",
    "CacheUse",
    "Cancelled",
    "Context",
    "Datatype",
    "DeadlineExceeded",
    "Duration",
    "Handler",
    "InvalidInput",
    "Layer",
    "MeshError",
    "ModelFile",
    "Needs",
    "Node",
    "NodeContractError",
    "NodeFailed",
    "NotFound",
    "Overloaded",
    "PlacementError",
    "Predict",
    "Preprocess",
    "RequestError",
    "SetupError",
    "Signature",
    "Size",
    "TensorSpec",
    "Tensors",
    "TopologyError",
    "Unavailable",
    "rows_failed",
    "stack",
]
