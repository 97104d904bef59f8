"""`check_layer`: everything that a mesh expects of a layer, tried on a real one.

| rule | what has to hold |
|---|---|
| settings | two layers made alike are equal, and neither can be changed |
| request | the handler is given the caller's tensors, parameters, clock and, alone, its request id |
| deadline | the handler is given the caller's deadline, or an earlier one |
| report | what the handler reports of its time reaches the caller who asked, and nobody else |
| answer | the caller is given the handler's answer |
| errors | a request error that comes again and again comes out as it was raised, naming the caller's own request |
| attempts | only an error that may be retried is followed by another call of the handler |
| foreign errors | an exception that is no request error comes out as it is, or as NodeFailed |
| cancellation | a cancelled call ends at once, and so does the handler's |
| concurrency | calls at the same time get each its own answer, in whatever order they are answered |
| company | a call that fails or is cancelled does not harm those beside it |
| release | after many calls that failed or were cancelled there is as much room as before |
| apart | one layer around two handlers shares nothing between them |
| no trace | nothing is left on the event loop or the clock |

A layer may hold a request back for up to a second, may answer several requests with one call of its handler, and may
call it again for one of them when that is late or failed in a way that may pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mesh.context import Context, NodeTiming
from mesh.errors import REQUEST_ERRORS, NodeFailed, RequestError, Unavailable
from mesh.handler import Handler, Layer
from mesh.tensors import Tensors
from mesh.testing.clock import ManualClock, settle
from mesh.testing.doubles import ScriptedCall, ScriptedHandler

__all__ = ["check_layer"]

_STEP_S = 0.01
_STEPS = 100
"""How long a layer may hold a request back: this many steps."""


async def check_layer(make_layer: Callable[[], Layer], *, concurrent_calls: int = 4, rounds: int = 64) -> None:
    """Hold a layer against every rule above; the first one broken is raised.

    Args:
        make_layer: Makes the layer, always with the same settings. They have to let `concurrent_calls` requests of one
            row through at once, and `rounds` failures pass. Rooms in it should be smaller than `rounds`, so that one
            that leaks is found.
        concurrent_calls: Calls that are made at the same time.
        rounds: Calls that are made one after another to fail or be cancelled.

    Raises:
        AssertionError: A rule is broken; names it.
    """
    tasks = asyncio.all_tasks()
    clock = ManualClock()
    _check_settings(make_layer)
    for rule in (
        _check_request,
        _check_errors,
        _check_cancellation,
        _check_release,
        _check_concurrency,
        _check_company,
        _check_apart,
    ):
        await rule(_Subject(make_layer, clock, concurrent_calls, rounds))
    await settle()
    _hold("no trace", asyncio.all_tasks() == tasks, "tasks are left on the event loop")
    _hold("no trace", clock.planned == 0, "timers are left on the clock")


def _hold(rule: str, holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"the layer breaks the rule '{rule}': {otherwise}")


def _rows(*values: float) -> Tensors:
    return Tensors({"x": np.array(values, dtype=np.float32).reshape(-1, 1)})


class _Subject:
    """A layer around a scripted handler, and a clock that moves when the layer makes a request wait."""

    def __init__(self, make_layer: Callable[[], Layer], clock: ManualClock, calls: int, rounds: int) -> None:
        self.layer = make_layer()
        self.script = ScriptedHandler()
        self.handler = self.layer(self.script)
        self.clock = clock
        self.calls = calls
        self.rounds = rounds

    def context(self, request_id: str = "asked", **told: object) -> Context:
        return Context(request_id=request_id, clock=self.clock, **told)  # type: ignore[arg-type]

    def ask(self, request: Tensors, context: Context, handler: Handler[Tensors] | None = None) -> asyncio.Task[Tensors]:
        async def call() -> Tensors:
            return await (handler or self.handler)(request, context)

        return asyncio.create_task(call())

    async def arrival(self, rule: str, script: ScriptedHandler | None = None) -> ScriptedCall:
        """The handler's next call, however long the layer may hold it back."""
        script = script or self.script
        await settle()
        for _ in range(_STEPS):
            if script.pending:
                return await script.request()
            await self.clock.advance(_STEP_S)
        _hold(rule, script.pending > 0, f"the handler was not called within {_STEP_S * _STEPS:g} s")
        return await script.request()

    async def fail_all(self, rule: str, asked: asyncio.Task[Tensors], error: type[RequestError]) -> int:
        """Fail every call of the handler with an error of its own until the caller has one; how many there were."""
        attempts = 0
        for _ in range(_STEPS):
            call = await self.arrival(rule)
            attempts += 1
            call.fail(error("why", node="node", tensor="x", row=0, request_id="asked"))
            await settle()
            if asked.done():
                break
        return attempts

    async def answer_all(self, rule: str, asked: Sequence[asyncio.Task[Tensors]]) -> None:
        """Double whatever the handler is asked, newest first, until every caller has its answer."""
        for _ in range(self.calls * _STEPS):
            await settle()
            if all(task.done() for task in asked):
                return
            waiting = [await self.script.request() for _ in range(self.script.pending)]
            for call in reversed(waiting):
                if not call.cancelled:
                    call.reply(_doubled(call.request))
            if not waiting:
                await self.clock.advance(_STEP_S)
        _hold(rule, False, "callers got no answer although the handler answers")


def _doubled(request: Tensors) -> Tensors:
    return Tensors({"x": request["x"] * 2})


async def _outcome(task: asyncio.Task[Tensors]) -> Tensors | BaseException:
    await settle()
    _hold("answer", task.done(), "the call goes on although its handler has ended")
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()


def _check_settings(make_layer: Callable[[], Layer]) -> None:
    one, other = make_layer(), make_layer()
    _hold("settings", one == other, "two layers made alike differ")
    fields: Mapping[str, object] = getattr(type(one), "model_fields", None) or getattr(one, "__dataclass_fields__", {})
    for name in fields:
        try:
            setattr(one, name, getattr(one, name))
        except (AttributeError, TypeError, ValueError):
            continue
        _hold("settings", False, f"{name!r} can be changed")


async def _check_request(subject: _Subject) -> None:
    timings: list[NodeTiming] = []
    asked = subject.context(parameters={"k": 3}, deadline=subject.clock.now() + 3600.0, timings=timings)
    task = subject.ask(_rows(1.0), asked)
    call = await subject.arrival("request")
    given = call.context
    _hold("request", call.request == _rows(1.0), f"the handler was given {call.request!r}")
    _hold("request", given.parameters == asked.parameters, f"parameters became {given.parameters!r}")
    _hold("request", given.clock is asked.clock, "the handler was given another clock")
    _hold("request", given.request_id == asked.request_id, "a request alone lost its request id")
    _hold("deadline", given.deadline is not None, "the handler was given no deadline")
    _hold("deadline", (given.deadline or 0.0) <= (asked.deadline or 0.0), "the handler was given a later deadline")
    _hold("report", given.timings is not None, "the handler was not asked for its time")
    if given.timings is not None:
        given.timings.append(NodeTiming(node="node", rows=1))
    call.reply(_rows(2.0))
    _hold("answer", await _outcome(task) == _rows(2.0), "the caller was given something else than the answer")
    _hold("report", [timing.node for timing in timings] == ["node"], f"the caller was told {timings}")


async def _check_errors(subject: _Subject) -> None:
    for code, error in REQUEST_ERRORS.items():
        task = subject.ask(_rows(1.0), subject.context())
        attempts = await subject.fail_all("errors", task, error)
        found = await _outcome(task)
        wanted = error("why", node="node", tensor="x", row=0, request_id="asked")
        _hold("errors", found == wanted, f"{code} came out as {found!r}")
        _hold("attempts", attempts == 1 or error.retryable, f"the handler was called {attempts} times after {code}")
    task = subject.ask(_rows(1.0), subject.context())
    (await subject.arrival("foreign errors")).fail(LookupError("foreign"))
    found = await _outcome(task)
    _hold("foreign errors", isinstance(found, LookupError | NodeFailed), f"a LookupError came out as {found!r}")


async def _check_cancellation(subject: _Subject) -> None:
    task = subject.ask(_rows(1.0), subject.context())
    call = await subject.arrival("cancellation")
    task.cancel()
    found = await _outcome(task)
    _hold("cancellation", isinstance(found, asyncio.CancelledError), f"a cancelled call ended in {found!r}")
    _hold("cancellation", call.cancelled, "the handler works on for a caller that went away")
    task = subject.ask(_rows(1.0), subject.context())
    (await subject.arrival("cancellation")).fail(Unavailable("gone"))
    await settle()
    if not task.done():  # it waits for another attempt
        task.cancel()
        found = await _outcome(task)
        _hold("cancellation", isinstance(found, asyncio.CancelledError), f"a cancelled call ended in {found!r}")


async def _check_release(subject: _Subject) -> None:
    for index in range(subject.rounds):
        task = subject.ask(_rows(1.0), subject.context())
        call = await subject.arrival("release")
        if index % 2:
            call.fail(NodeFailed("why"))
            _hold("release", isinstance(await _outcome(task), NodeFailed), "an error was lost")
        else:
            task.cancel()
            await _outcome(task)
    # Cancelled before the layer can have called its handler.
    for _ in range(subject.rounds):
        task = subject.ask(_rows(1.0), subject.context())
        await asyncio.sleep(0)
        task.cancel()
        await _outcome(task)
    while subject.script.pending:
        await subject.script.request()
    task = subject.ask(_rows(1.0), subject.context())
    await subject.answer_all("release", [task])
    _hold("release", await _outcome(task) == _rows(2.0), "after failed and cancelled calls there is no room left")


async def _check_concurrency(subject: _Subject) -> None:
    asked = [subject.ask(_rows(float(index)), subject.context(f"{index}")) for index in range(subject.calls)]
    await subject.answer_all("concurrency", asked)
    for index, task in enumerate(asked):
        found = await _outcome(task)
        _hold("concurrency", found == _rows(2.0 * index), f"call {index} was given {found!r}")


async def _check_company(subject: _Subject) -> None:
    """Every first call of three is cancelled, every second is bad: whatever holds its row fails."""
    asked = [subject.ask(_rows(float(index)), subject.context(f"{index}")) for index in range(subject.calls)]
    await settle()
    for task in asked[::3]:
        task.cancel()
    bad = {float(index) for index in range(subject.calls)[1::3]}
    for _ in range(subject.calls * _STEPS):
        await settle()
        if all(task.done() for task in asked):
            break
        if not subject.script.pending:
            await subject.clock.advance(_STEP_S)
            continue
        call = await subject.script.request()
        if call.cancelled:
            continue
        if bad.intersection(call.request["x"].ravel().tolist()):
            call.fail(NodeFailed("bad row"))
        else:
            call.reply(_doubled(call.request))
    for index, task in enumerate(asked):
        found = await _outcome(task)
        wanted: object = _rows(2.0 * index)
        if index % 3 == 0:
            wanted = asyncio.CancelledError
            found = type(found)
        elif float(index) in bad:
            wanted = (NodeFailed, f"{index}")
            found = (type(found), found.request_id or f"{index}") if isinstance(found, RequestError) else found
        _hold("company", found == wanted, f"call {index} ended in {found!r} where {wanted!r} was due")


async def _check_apart(subject: _Subject) -> None:
    other = ScriptedHandler()
    around_other = subject.layer(other)
    held = [subject.ask(_rows(1.0), subject.context()) for _ in range(subject.calls)]
    await settle()
    task = subject.ask(_rows(3.0), subject.context(), around_other)
    (await subject.arrival("apart", other)).reply(_rows(4.0))
    _hold("apart", await _outcome(task) == _rows(4.0), "a busy handler keeps the other one's callers waiting")
    await subject.answer_all("apart", held)
