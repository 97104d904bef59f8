"""Nodes of these tests: each a few lines of arithmetic that a plain interpreter can do again."""

from __future__ import annotations

import numpy as np

from mesh import Context, InvalidInput, Predict, Preprocess, Signature, Tensors

__all__ = ["Add", "Affine", "Faulty", "Lines", "Pages", "Wide", "Wrapped"]


class Affine(Predict):
    """x * times + plus."""

    signature = Signature.parse("x: FP32[rows] -> x: FP32[rows]")

    def __init__(self, *, times: float = 1, plus: float = 0) -> None:
        self._times, self._plus = np.float32(times), np.float32(plus)

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"x": inputs["x"] * self._times + self._plus})


class Wrapped(Affine):
    """The same, kept below 97, so that whole numbers stay exact; zero has no sign."""

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"x": np.fmod(inputs["x"] * self._times + self._plus, np.float32(97)) + np.float32(0)})


class Add(Predict):
    """The sum of two."""

    signature = Signature.parse("a: FP32[rows], b: FP32[rows] -> x: FP32[rows]")

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"x": inputs["a"] + inputs["b"]})


class Wide(Predict):
    """x as many times as it was told to; how many that is, its signature does not say."""

    signature = Signature.parse("x: FP32[rows] -> x: FP32[rows, n]")

    def __init__(self, *, width: int) -> None:
        self._width = width

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return Tensors({"x": np.repeat(inputs["x"][:, None], self._width, axis=1)})


class Lines(Preprocess):
    """|x| modulo `most` rows of each: x * 10, x * 10 + 1, ..."""

    signature = Signature.parse("x: FP32[rows] -> x: FP32[rows]")
    expands = True

    def __init__(self, *, most: int = 4) -> None:
        self._most = most

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        counts = np.abs(inputs["x"]).astype(np.int64) % self._most
        sources = np.repeat(np.arange(inputs.rows), counts)
        within = np.arange(len(sources)) - np.repeat(np.cumsum(counts) - counts, counts)
        return Tensors({"x": inputs["x"][sources] * np.float32(10) + within.astype(np.float32)}, sources=sources)


class Pages(Lines):
    """The same, and says nothing of sources, or what cannot be."""

    def __init__(self, *, gives: str = "none") -> None:
        super().__init__()
        self._gives = gives

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        sources = None if self._gives == "none" else np.full(inputs.rows, inputs.rows)
        return Tensors({"x": inputs["x"]}, sources=sources)


class Faulty(Predict):
    """Affine, but for rows and ways in which it is wrong."""

    signature = Signature.parse("x: FP32[rows] -> x: FP32[rows]")

    def __init__(self, *, how: str, at: float | None = None) -> None:
        self._how, self._at = how, at

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        x = inputs["x"]
        bad = np.flatnonzero(x == self._at) if self._at is not None else np.arange(len(x))
        if not len(bad):
            return Tensors({"x": x})
        match self._how:
            case "refuses":
                raise InvalidInput(f"{x[bad[0]]} is not liked", row=int(bad[0]))
            case "raises":
                raise RuntimeError("of its own")
            case "a row too few":
                return Tensors({"x": x[1:]})
            case "another shape":
                return Tensors({"x": x[:, None]})
            case "another datatype":
                return Tensors({"x": x.astype(np.float64)})
            case "another name":
                return Tensors({"y": x})
            case _:
                raise AssertionError(self._how)
