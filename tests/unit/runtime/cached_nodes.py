"""A node that notes which rows it was run on."""

from __future__ import annotations

from mesh import Context, InvalidInput, Predict, Signature, Tensors

CALLS: dict[str, list[float]] = {}
"""By node, the first numbers of its rows."""


class Counting(Predict):
    """Adds one, or what the parameter `add` says."""

    signature = Signature.parse("x: FP32[rows, n] -> x: FP32[rows, n]")

    def __init__(self, *, name: str) -> None:
        self._name = name

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        numbers = inputs["x"][:, 0].tolist()
        CALLS.setdefault(self._name, []).extend(numbers)
        for row, number in enumerate(numbers):
            if number < 0 and self._name == "second":
                raise InvalidInput("no negative rows", row=row)
        add = context.parameters.get("add", 1) if self._name == "first" else 1
        assert isinstance(add, int)
        return Tensors({"x": inputs["x"] + add})


REMEMBERED: dict[str, list[bytes] | None] = {}
"""By node, the digests that the request remembered when it ran; None where it remembers none."""


class Noting(Predict):
    """Says how many rows it was given, and notes what the request remembers of large ones."""

    signature = Signature.parse("x: FP32[rows, n] -> label: INT64[rows]")

    def __init__(self, *, name: str) -> None:
        self._name = name

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        known = context.digests
        REMEMBERED[self._name] = (
            None if known is None else [digest for _, rows in known.values() for digest in rows.values()]
        )
        return Tensors({"label": inputs["x"][:, 0].astype("int64")})
