"""What an author may not write. A line that the type checker has to refuse says so, at its end or above it:
`# refused: the rule`."""

from __future__ import annotations

from mesh import Aggregate, Branches, Context, Handler, InvalidInput, Layer, Predict, Preprocess, Tensors, stack
from mesh.context import Clock
from mesh.layers import Batch, Queue, Timeout
from mesh.load import LoadPlan
from mesh.runtime import LocalMesh
from mesh.topology import Plan, Worker
from mesh.transports import InprocTransport, Limits, Listener, Transport


class Unfinished(Predict):
    pass


Unfinished()  # refused: reportAbstractUsage


class Blocking(Predict):
    # refused: reportIncompatibleMethodOverride
    def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return inputs


class Plain(Predict):
    # refused: reportIncompatibleMethodOverride
    async def predict(self, inputs: dict[str, float], context: Context) -> Tensors:
        return Tensors(inputs)


class Loose(Preprocess):
    # refused: reportIncompatibleMethodOverride
    async def preprocess(self, inputs: Tensors, context: Context) -> dict[str, float]:
        return {}


class Alone(Preprocess):
    # refused: reportIncompatibleMethodOverride
    async def preprocess(self, inputs: Tensors) -> Tensors:
        return inputs


class Deaf(Aggregate):
    # refused: reportIncompatibleMethodOverride
    async def aggregate(self, branches: Tensors, context: Context) -> Tensors:
        return branches


class Unspecified(Predict):
    signature = "x: FP32[rows] -> y: FP32[rows]"  # refused: reportAssignmentType

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        return inputs


# Settings are said by name, have the type they say, and stay as they are.
Batch(32)  # refused: reportCallIssue
Queue(256, "wait")  # refused: reportCallIssue
Queue(when_full="drop")  # refused: reportArgumentType
Timeout()  # refused: reportCallIssue
Batch(max_row=8)  # refused: reportCallIssue
LoadPlan("closed")  # refused: reportCallIssue
LoadPlan(mode="open")  # refused: reportArgumentType
Limits(1024)  # refused: reportCallIssue
Worker("gateway", ())  # refused: reportCallIssue
Limits().max_in_flight = 3  # refused: reportAttributeAccessIssue

# A request and its context are values.
context = Context()
context.deadline = 3.0  # refused: reportAttributeAccessIssue
Context("id")  # refused: reportCallIssue
tensors = Tensors({})
tensors["x"] = 1  # refused: reportIndexIssue

# Errors say by name where they belong.
InvalidInput("wrong", "node")  # refused: reportCallIssue
InvalidInput("wrong", row="first")  # refused: reportArgumentType


# Handlers, layers and transports have one shape.
def blocking(request: Tensors, context: Context, /) -> Tensors:
    return request


async def unaware(request: Tensors, /) -> Tensors:
    return request


async def of_branches(request: Branches, context: Context, /) -> Tensors:
    raise InvalidInput("nothing to join")


async def of_tensors(request: Tensors, context: Context, /) -> Tensors:
    return request


def no_layer(handler: Handler[Tensors], /) -> Tensors:
    return Tensors({})


class Half:
    address = "half://"


not_async: Handler[Tensors] = blocking  # refused: reportAssignmentType
without_context: Handler[Tensors] = unaware  # refused: reportAssignmentType
stack(blocking)  # refused: reportArgumentType
stack(of_tensors, no_layer)  # refused: reportArgumentType
stack(of_tensors, Batch)  # refused: reportArgumentType
aggregate: Handler[Branches] = of_tensors  # refused: reportAssignmentType
layer: Layer = of_tensors  # refused: reportAssignmentType
listener: Listener = Half()  # refused: reportAssignmentType
transport: Transport = InprocTransport  # refused: reportAssignmentType
clock: Clock = 0.0  # refused: reportAssignmentType


async def forgotten(plan: Plan) -> Tensors:
    async with LocalMesh(plan, InprocTransport()) as mesh:  # refused: reportCallIssue
        return mesh(Tensors({}))  # refused: reportReturnType
