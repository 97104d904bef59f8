"""`Same`: one tensor, given as it was taken."""

from __future__ import annotations

from mesh import Context, NodeContractError, Preprocess, Signature, Tensors

__all__ = ["Same"]


class Same(Preprocess):
    """Gives the tensor that it takes, so that an input of the graph can be a branch: an aggregate joins nodes.

    Args:
        tensor: What the tensor is called.
        type: Its type as in a signature, such as `BYTES[rows]` or `FP32[rows, n]`.

    Raises:
        NodeContractError: The two together are no tensor of a signature.
    """

    def __init__(self, *, tensor: str, type: str) -> None:  # noqa: A002 - what a file should say
        self.signature = Signature.parse(f"{tensor}: {type} -> {tensor}: {type}")
        if list(self.signature.inputs) != [tensor]:
            raise NodeContractError(f"'{tensor}: {type}' is more than one tensor")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        return inputs
