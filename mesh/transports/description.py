"""What Describe tells, to `mesh.v1` messages and back."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.signature import ANY, TensorSpec
from mesh.tensors import DATATYPES
from mesh.transports.codec import encode_specs
from mesh.transports.contract import Description, NodeDescription
from mesh.v1 import graph_service_pb2, tensor_pb2

__all__ = ["decode_description", "encode_description"]

_BY_NUMBER = {datatype.number: name for name, datatype in DATATYPES.items()}


def encode_description(told: Description) -> graph_service_pb2.DescribeResponse:
    """A description as a message; every symbolic size becomes -1."""
    return graph_service_pb2.DescribeResponse(
        graph=told.graph,
        digest=told.digest,
        inputs=encode_specs(told.inputs),
        outputs=encode_specs(told.outputs),
        nodes=[
            graph_service_pb2.NodeDescription(
                name=node.name,
                kind=node.kind,
                uses=node.uses,
                worker=node.worker,
                inputs=encode_specs(node.inputs),
                outputs=encode_specs(node.outputs),
                after=node.after,
            )
            for node in told.nodes
        ],
    )


def decode_description(message: graph_service_pb2.DescribeResponse) -> Description:
    """A message as a description; every -1 becomes `?`, on axis 0 `rows`."""
    return Description(
        graph=message.graph,
        digest=message.digest,
        inputs=_specs(message.inputs),
        outputs=_specs(message.outputs),
        nodes=[
            NodeDescription(
                name=node.name,
                kind=node.kind,
                uses=node.uses,
                worker=node.worker,
                inputs=_specs(node.inputs),
                outputs=_specs(node.outputs),
                after=list(node.after),
            )
            for node in message.nodes
        ],
    )


def _specs(messages: Iterable[tensor_pb2.TensorSpec]) -> dict[str, TensorSpec]:
    return {
        message.name: TensorSpec(
            _BY_NUMBER.get(message.datatype, "BYTES"),
            tuple("rows" if axis == 0 else ANY if size < 0 else size for axis, size in enumerate(message.shape)),
        )
        for message in messages
    }
