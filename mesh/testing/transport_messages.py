"""The rules of `check_transport` on what crosses a link: tensors, errors, contexts, reports, and their sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from mesh.context import BranchOutcome, BranchState, Context, JoinOutcome, NodeTiming
from mesh.errors import (
    REQUEST_ERRORS,
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    NotFound,
    Overloaded,
    RequestError,
    Unavailable,
)
from mesh.handler import Branches, Handler
from mesh.tensors import DATATYPES, Tensors
from mesh.testing.doubles import ScriptedCall, ScriptedHandler
from mesh.testing.transport_bench import ROW, WITHIN_S, TransportBench, echo, node
from mesh.transports import Endpoint, Limits
from mesh.transports.contract import GRAPH
from mesh.transports.statistics import BranchStatistics, MissingWorker, NodeStatistics, Statistics, WorkerTold

__all__ = ["MESSAGE_RULES"]

_BIG = 6 << 20
"""Bytes of a message beyond gRPC's own bound of 4 MiB."""


async def datatypes(bench: TransportBench) -> None:
    """Tensors of every datatype arrive bit for bit, whatever their shape and their layout in memory."""
    rng = np.random.default_rng(7)
    blobs = np.array([b"", b"\0", b"a\0b\0", bytes(range(256)), "naïve \U0001f600".encode(), b"x" * 300], dtype=object)
    async with bench.serve(node(echo)) as served:
        handler = served.link.handler("predict", "node")
        for name, datatype in DATATYPES.items():
            bits = rng.integers(0, 2 if name == "BOOL" else 256, 120 * (datatype.itemsize or 1), dtype=np.uint8)
            flat = np.resize(blobs, 120) if name == "BYTES" else bits.view(datatype.dtype)
            cube = flat.reshape(2, 3, 4, 5)
            sent = Tensors(
                {
                    "flat": flat,
                    "axes": cube,
                    "transposed": cube.transpose(3, 1, 0, 2),
                    "strided": flat[::7],
                    "backwards": cube[::-1, :, ::2],
                    "no rows": cube[:0],
                    "empty rows": cube[:, :, :0],
                    "scalar": flat[0:1].reshape(()),
                }
            )
            bench.hold(await handler(sent, Context()) == sent, f"{name} came back otherwise")
        foreign = Tensors({"x": np.arange(5, dtype=">i4"), "y": np.float32(1.5), "z": ml_dtypes.bfloat16(2.5)})
        bench.hold(await handler(foreign, Context()) == foreign, "foreign byte order or a scalar came back otherwise")
        bench.hold(await handler(Tensors({}), Context()) == Tensors({}), "no tensors at all came back otherwise")


async def read_only(bench: TransportBench) -> None:
    """What arrives cannot be written to, on either side."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        asked = asyncio.ensure_future(served.link.handler("predict", "node")(_mixed(), Context()))
        call = await script.request()
        call.echo()
        for tensors in (call.request, await asked):
            bench.hold(not any(array.flags.writeable for array in tensors.values()), "an array can be written to")


def _mixed() -> Tensors:
    return Tensors({"x": np.ones((2, 2), np.float32), "b": [[b"a"], [b""]], "big": np.zeros((2, 20_000), np.float64)})


async def kinds(bench: TransportBench) -> None:
    """Nodes of every kind and graphs are called by kind and name; an aggregate is given answers and errors."""
    seen: list[Branches] = []

    async def join(branches: Branches, context: Context, /) -> Tensors:
        seen.append(branches)
        return ROW

    endpoints = [Endpoint(kind=kind, name=kind, handler=_named(kind)) for kind in ("preprocess", "predict", GRAPH)]
    async with bench.serve(*endpoints, Endpoint(kind="aggregate", name="join", handler=join)) as served:
        for kind in ("preprocess", "predict", GRAPH):
            answer = await served.link.handler(kind, kind)(ROW, Context())
            bench.hold(answer == Tensors({"kind": [kind]}), f"a {kind} call was answered by {answer!r}")
        branches = Branches(
            {
                "first": Tensors({"y": [b"\0", b""], "z": [[3], [4]]}),
                "second": Overloaded("full", node="second", request_id="r", retry_after_s=0.25),
                "some": Tensors({"x": [1.5]}, sources=[1]),
                "none": Tensors({"x": np.empty((0, 2))}, sources=[]),
            }
        )
        failed = Branches({"only": InvalidInput("why", node="only", request_id="r")}, rows=3)
        for sent in (branches, failed):
            await served.link.handler("aggregate", "join")(sent, Context())
            same = seen[-1] == sent and list(seen[-1]) == list(sent) and seen[-1].rows == sent.rows
            bench.hold(same, f"branches arrived as {seen[-1]}")


async def sources(bench: TransportBench) -> None:
    """A node may answer with more rows than it was given, or fewer: each says which row it came from."""
    for size in (1, 40_000):
        answer = Tensors({"x": np.ones((3, size), np.float32)}, sources=[0, 0, 2])
        nothing = Tensors({"x": np.ones((0, size), np.float32)}, sources=[])
        script = ScriptedHandler()
        async with bench.serve(node(script)) as served:
            for expected in (answer, nothing):
                asked = asyncio.ensure_future(served.link.handler("predict", "node")(ROW, Context()))
                (await script.request()).reply(expected)
                found = await asked
                bench.hold(found == expected, f"{expected!r} arrived as {found!r}")


def _named(kind: str) -> Handler[Tensors]:
    async def answer(request: Tensors, context: Context, /) -> Tensors:
        return Tensors({"kind": [kind]})

    return answer


async def unknown_endpoint(bench: TransportBench) -> None:
    """What is not there is NotFound, naming what is; an empty name means the only one of its kind, or the front one."""
    endpoints = [node(echo, "one"), node(echo, "two"), Endpoint(kind=GRAPH, name="graph", handler=_named("part"))]
    front = Endpoint(kind=GRAPH, name="front", handler=_named("front"), front=True)
    async with bench.serve(*endpoints, front) as served:
        error = await bench.error(served.link.handler("predict", "three")(ROW, Context(request_id="r")))
        bench.hold(isinstance(error, NotFound), f"{error!r}")
        bench.hold("one" in error.text and "three" in error.text, f"the text does not help: {error.text}")
        bench.hold(error.request_id == "r", "the error names no request")
        error = await bench.error(served.link.handler("predict", "")(ROW, Context()))
        bench.hold(isinstance(error, NotFound), f"no name, where there are two, gave {error!r}")
        answer = await served.link.handler(GRAPH, "")(ROW, Context())
        bench.hold(answer == Tensors({"kind": ["front"]}), f"no name was answered by {answer!r}")


async def errors(bench: TransportBench) -> None:
    """Every request error comes back equal to the one that was raised."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        handler = served.link.handler("predict", "node")
        for made in REQUEST_ERRORS.values():
            for text in ("why", "", "naïve \U0001f600 \0\r\n%41", "long " * 4000):
                fields: dict[str, Any] = {"node": "far", "tensor": "x\n", "row": 7, "request_id": "other"}
                if made is Overloaded:
                    fields["retry_after_s"] = 1.234567891
                asked = asyncio.ensure_future(handler(ROW, Context()))
                (await script.request()).fail(made(text, **fields))
                found = await bench.error(asked)
                bench.hold(found == made(text, **fields), f"{made.__name__} came back as {found!r}")
        asked = asyncio.ensure_future(handler(ROW, Context(request_id="mine")))
        (await script.request()).fail(InvalidInput("bare"))
        found = await bench.error(asked)
        wanted = InvalidInput("bare", node="node", request_id="mine")
        bench.hold(found == wanted, f"an error that knew neither node nor request came back as {found.__dict__}")


async def foreign_failures(bench: TransportBench) -> None:
    """Whatever else a handler does ends the call as NodeFailed, in words that are safe to show."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        handler = served.link.handler("predict", "node")

        async def failure(end: Callable[[ScriptedCall], None]) -> RequestError:
            asked = asyncio.ensure_future(handler(ROW, Context(request_id="r")))
            end(await script.request())
            return await bench.error(asked)

        wrong: Any = None
        ends: list[Callable[[ScriptedCall], None]] = [
            lambda call: call.fail(ValueError("/secret/path")),
            lambda call: call.fail(asyncio.CancelledError()),
            lambda call: call.reply(wrong),
        ]
        for end in ends:
            found = await failure(end)
            bench.hold(isinstance(found, NodeFailed), f"it ended in {found!r}")
            bench.hold((found.node, found.request_id) == ("node", "r"), "the error does not say where")
            bench.hold("secret" not in f"{found} {found.text}", f"the caller was told: {found}")


async def context(bench: TransportBench) -> None:
    """Request id and parameters arrive with their types; too many parameters, or strange ones, are InvalidInput."""
    script = ScriptedHandler()
    told = {"flag": True, "count": -(2**63), "one": 1, "share": 0.1, "word": "naïve \0", "empty": ""}
    async with bench.serve(node(script)) as served:
        handler = served.link.handler("predict", "node")
        asked = asyncio.ensure_future(handler(ROW, Context(request_id="r-1", parameters=told)))
        call = await script.request()
        call.echo()
        await asked
        bench.hold(call.context.request_id == "r-1", f"the request is called {call.context.request_id!r} there")
        found = {name: (type(value), value) for name, value in call.context.parameters.items()}
        bench.hold(found == {name: (type(value), value) for name, value in told.items()}, f"it was told {found}")
        bench.hold(call.context.timings is None, "a report was made that nobody asked for")
        many = Context(parameters={str(index): index for index in range(65)})
        bench.hold(isinstance(await bench.error(handler(ROW, many)), InvalidInput), "65 parameters were taken")


async def report(bench: TransportBench) -> None:
    """What the handler reports of its time reaches the caller who asked, with the time between the two."""

    async def timed(request: Tensors, context: Context, /) -> Tensors:
        if context.timings is not None:
            one = NodeTiming(node="a", worker="w", pid=42, rows=3, queue_s=0.5, compute_s=0.25)
            context.timings.extend([one, NodeTiming(node="b", worker="w", pid=42, rows=3)])
        return request

    async with bench.serve(node(timed)) as served:
        timings: list[NodeTiming] = []
        await served.link.handler("predict", "node")(ROW, Context(timings=timings))
        bench.hold([timing.node for timing in timings] == ["a", "b"], f"the caller was told {timings}")
        first = timings[0]
        found = (first.worker, first.pid, first.rows, first.queue_s, first.compute_s)
        bench.hold(found == ("w", 42, 3, 0.5, 0.25), f"the caller was told {first}")
        bench.hold(all(timing.wire_s >= 0 for timing in timings), f"time went backwards: {timings}")


async def joins(bench: TransportBench) -> None:
    """Which branches answered, failed and why, or were late reaches the caller, with or without a report."""
    error = Overloaded("full", node="b", tensor="x", row=3, request_id="r", retry_after_s=0.25)
    late = DeadlineExceeded("was not there in time", node="c", request_id="r")
    told = JoinOutcome(
        "join",
        (
            BranchOutcome("a", BranchState.ANSWERED, 3),
            BranchOutcome("b", BranchState.FAILED, 0, error),
            BranchOutcome("c", BranchState.LATE, 0, late),
            BranchOutcome("d", BranchState.WITHOUT_ROWS),
        ),
    )

    async def joining(request: Tensors, context: Context, /) -> Tensors:
        bench.hold(context.joins is not None, "the handler is not asked who answered in its joins")
        if context.joins is not None and "quiet" not in context.parameters:
            context.joins.extend([told, JoinOutcome("other", told.branches[:1])])
        return request

    for kind, timings in ((GRAPH, None), (GRAPH, []), ("predict", None)):
        async with bench.serve(Endpoint(kind=kind, name="node", handler=joining)) as served:
            handler = served.link.handler(kind, "node")
            found: list[JoinOutcome] = []
            await handler(ROW, Context(joins=found, timings=timings))
            bench.hold(found == [told, JoinOutcome("other", told.branches[:1])], f"a {kind} call told of {found}")
            found.clear()
            await handler(ROW, Context(joins=found, parameters={"quiet": True}))
            bench.hold(not found, f"where no join ran the caller was told of {found}")


async def statistics(bench: TransportBench) -> None:
    """What a listener has counted reaches who asks: its own, or all; one that counts nothing is NotFound."""
    told = Statistics(
        graph="g",
        nodes=(NodeStatistics(node="a", requests=3, rows=7, errors={"INTERNAL": 1}, queue_s=0.5, batch_rows=(0, 2)),),
        branches=(BranchStatistics(node="j", branch="a", late=2, max_behind_s=0.25),),
        workers=(WorkerTold("w", 42, 1.5),),
        missing=(MissingWorker("v", 1, Overloaded("full", retry_after_s=0.5)),),
    )
    own = Statistics(workers=told.workers)

    async def tell(alone: bool) -> Statistics:
        return own if alone else told

    async with bench.serve(node(echo), tell=tell) as served:
        for alone, expected in ((True, own), (False, told)):
            found = await served.link.stats(WITHIN_S, own=alone)
            bench.hold(found == expected, f"it was told {found}")
        bench.hold(await served.link.handler("predict", "node")(ROW, Context()) == ROW, "the node answers otherwise")
    async with bench.serve(node(echo)) as served:
        error = await bench.error(served.link.stats(WITHIN_S))
        bench.hold(isinstance(error, NotFound), f"where nobody counts it ended in {error!r}")


async def statistics_in_time(bench: TransportBench) -> None:
    """Who asks for statistics does not wait longer than they said, nor for a listener that is gone."""
    asked = asyncio.Event()

    async def tell(alone: bool) -> Statistics:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    async with bench.serve(node(echo), tell=tell) as served:
        error = await bench.error(served.link.stats(0.05))
        bench.hold(isinstance(error, DeadlineExceeded), f"it ended in {error!r}")
        bench.hold(asked.is_set(), "nobody was asked")
        await served.listener.drain(0)
        error = await bench.error(served.link.stats(WITHIN_S))
        bench.hold(isinstance(error, Unavailable), f"of a listener that is gone it was told {error!r}")


async def big_message(bench: TransportBench) -> None:
    """A message of many megabytes arrives."""
    sent = Tensors({"x": np.arange(_BIG // 8, dtype=np.int64).reshape(4, -1), "s": [[b"a" * 1000] * 100] * 4})
    async with bench.serve(node(echo)) as served:
        bench.hold(await served.link.handler("predict", "node")(sent, Context()) == sent, "it came back otherwise")


async def too_big(bench: TransportBench) -> None:
    """A message over the bound is InvalidInput that names node and tensor, either way; the link goes on."""

    async def grow(request: Tensors, context: Context, /) -> Tensors:
        return Tensors({"y": np.zeros((int(request["x"][0]),), np.uint8), "z": np.zeros((4,), np.uint8)})

    for kind, bound in (("predict", 4096), (GRAPH, 8 * 4096)):
        node = "" if kind == GRAPH else "node"
        endpoint = Endpoint(kind=kind, name="node", handler=grow)
        async with bench.serve(endpoint, limits=Limits(max_message_bytes=4096)) as served:
            handler = served.link.handler(kind, "node")
            most = Tensors({"x": np.full((bound // 8,), bound - 4, np.int64)})
            bench.hold((await handler(most, Context())).nbytes == bound, "a message of the very bound did not arrive")
            for size in (bound, 40 * bound):
                request = Tensors({"x": np.zeros((size,), np.uint8), "y": np.zeros((1,), np.uint8)})
                error = await bench.error(handler(request, Context(request_id="r")))
                found = (type(error), error.node, error.tensor, error.request_id)
                bench.hold(found == (InvalidInput, node, "x", "r"), f"a request over the bound ended in {found}")
                request = Tensors({"x": np.array([size], np.int64)})
                error = await bench.error(handler(request, Context(request_id="r")))
                found = (type(error), error.node, error.tensor, error.request_id)
                bench.hold(found == (InvalidInput, node, "y", "r"), f"an answer over the bound ended in {found}")


MESSAGE_RULES: Sequence[Callable[[TransportBench], Awaitable[None]]] = (
    datatypes,
    read_only,
    kinds,
    sources,
    unknown_endpoint,
    errors,
    foreign_failures,
    context,
    report,
    joins,
    statistics,
    statistics_in_time,
    big_message,
    too_big,
)
