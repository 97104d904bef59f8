"""What an author may write: the type checker has nothing to say about it."""

from __future__ import annotations

from typing import Self

import numpy as np

from mesh import (
    Aggregate,
    Branches,
    Context,
    Handler,
    InvalidInput,
    Layer,
    ModelFile,
    Overloaded,
    Predict,
    Preprocess,
    RequestError,
    Signature,
    Tensors,
    stack,
)
from mesh.context import Clock
from mesh.layers import Batch, Queue, Timeout
from mesh.load import LoadPlan
from mesh.runtime import Executor, LocalMesh
from mesh.testing import ManualClock
from mesh.topology import Plan
from mesh.transports import GraphHandler, GrpcTransport, InprocTransport, Link, Listener, Transport
from mesh.transports.grpc import GrpcLink, GrpcListener


class Double(Preprocess):
    signature = Signature.parse("x: FP32[rows, n] -> x: FP32[rows, n]")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        context.check_deadline()
        return Tensors({"x": inputs["x"] * 2})


class Model(Predict):
    version = "2"

    def __init__(self, *, model: ModelFile, outputs: list[str] | None = None) -> None:
        self._model = model
        self._outputs = outputs

    @property
    def signature(self) -> Signature:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Signature.parse("x: FP32[rows, n] -> label: INT64[rows]")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...

    def digest(self) -> str:
        return self._model.read_bytes().hex()

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        if inputs.rows > 8:
            raise InvalidInput("too many rows", tensor="x", row=8)
        return Tensors({"label": np.zeros(inputs.rows, np.int64)})


class First(Aggregate):
    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        for result in branches.values():
            if isinstance(result, RequestError):
                continue
            return result
        raise Overloaded("nobody answered", retry_after_s=0.1)


async def echo(request: Tensors, context: Context, /) -> Tensors:
    return request


def twice(handler: Handler[Tensors], /) -> Handler[Tensors]:
    async def call(request: Tensors, context: Context, /) -> Tensors:
        return await handler(await handler(request, context), context)

    return call


class Doubling:
    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return twice(handler)


layer: Layer = Doubling()
stacked: Handler[Tensors] = stack(
    echo, Timeout(after_s=1.0), Queue(max_rows=64, when_full="wait"), Batch(max_rows=8), twice, layer
)
node: Handler[Tensors] = Double().preprocess
join: Handler[Branches] = First().aggregate
clock: Clock = ManualClock()
transports: list[Transport] = [InprocTransport(strict=True), GrpcTransport()]
plan_of_load = LoadPlan(mode="poisson", rate_per_s=10, duration_s=1)


def contracts(executor: Executor, link: GrpcLink, listener: GrpcListener) -> tuple[GraphHandler, Link, Listener]:
    whole: Handler[Tensors] = executor
    _ = stack(whole, Batch())
    return executor, link, listener


async def whole(plan: Plan) -> Tensors:
    async with LocalMesh(plan, transport=GrpcTransport(), address="unix:/tmp/{}-{}.sock") as mesh:
        handler: Handler[Tensors] = mesh
        answered = await handler(Tensors({"x": [[1.0]]}), Context(timings=[]).within(1.0))
        async for node_name, result in mesh.root.stream(answered, Context()):
            if isinstance(result, Tensors):
                print(node_name, result.rows)
        return answered
