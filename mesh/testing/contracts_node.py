"""`check_node`: everything that a mesh expects of a node, tried on a real one.

| rule | what has to hold |
|---|---|
| construct | `make()` gives a new node of a known kind; two of them have the same digest |
| signature | axis 0 of every tensor is `rows`; the example fits |
| load | `async with node` works, and again after it was left |
| unload | leaving gives back threads and tasks |
| answer | names, datatypes and shapes are those of the signature; arrays are read-only |
| rows | as many rows come out as went in |
| sources | a node that expands, and no other, says which row each of its rows came from |
| needs | an aggregate answers every row that it says it can, and fails with a RequestError where it cannot |
| zero rows | an empty batch gives an empty answer |
| rows alone | a row is answered alone as it is in a batch |
| inputs unchanged | nothing that was given is written to |
| concurrency | calls at the same time get what calls one after another get |
| event loop | no call holds the event loop for longer than stated |
| cancellation | a cancelled call ends at once with `CancelledError`, and the next call works |
| bad input | whatever a wrong request does, the next call works |
| in time | every call ends within the stated time |
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import numpy as np

from mesh.context import Context
from mesh.errors import InvalidInput, NodeContractError, RequestError
from mesh.handler import Branches
from mesh.node import KINDS, Aggregate, Cache, Node
from mesh.signature import InputCheck, Signature, TensorSpec
from mesh.tensors import Array, Tensors, datatype_of
from mesh.testing.partial_joins import partial_joins

__all__ = ["check_node"]

_ROWS_ALONE = 16
"""Rows of the example that are asked again one by one."""
_BLOCK_TRIES = 3
"""A machine that is busy with something else can hold up any loop; a node that blocks does so every time."""
_TICK_S = 0.001


async def check_node(
    make: Callable[[], Node],
    example: Tensors | Branches,
    *,
    tolerance: float = 1e-5,
    blocks_at_most_s: float = 0.25,
    answers_within_s: float = 30.0,
    concurrent_calls: int = 8,
) -> None:
    """Hold a node against every rule above; the first one broken is raised.

    Args:
        make: Builds the node, as the topology file would.
        example: A request that it answers, of at least two different rows. For an aggregate: what comes when every
            branch answers; the checker takes rows and branches away.
        tolerance: How far floating point numbers of one row may differ, relative or absolute, between two batches.
            Everything else has to be equal.
        blocks_at_most_s: Seconds for which a call may hold the event loop.
        answers_within_s: Seconds after which a call counts as hung.
        concurrent_calls: Calls that are made at the same time.

    Raises:
        NodeContractError: A rule is broken; names the node and the rule.
        ValueError: The example has fewer than two rows.
    """
    request = Branches({"": example}) if isinstance(example, Tensors) else example
    rows = request.rows
    if rows < 2:
        raise ValueError("the example needs at least two rows: rules about batches would hold by themselves")
    subject = _Subject(make, tolerance, answers_within_s)
    subject.check_signature(request)
    threads, tasks = _alive_threads(), asyncio.all_tasks()
    async with subject.loaded():
        expected = await subject.check_answers(request)
        await subject.check_needs(request, expected)
        await subject.check_concurrency(request, concurrent_calls)
        await subject.check_event_loop(request, blocks_at_most_s)
        await subject.check_cancellation(request, expected)
        await subject.check_bad_input(request, expected)
    left = [thread.name for thread in _alive_threads() - threads]
    subject.hold("unload", not left, f"threads are left: {', '.join(left)}")
    subject.hold("unload", not (asyncio.all_tasks() - tasks), "tasks are left on the event loop")
    async with subject.loaded():
        subject.same("load", await subject.answer_to(request, "load"), expected, "loaded again, it answers otherwise")


class _Subject:
    """The node under test, and how it is asked."""

    def __init__(self, make: Callable[[], Node], tolerance: float, answers_within_s: float) -> None:
        self._tolerance = tolerance
        self._answers_within_s = answers_within_s
        self._name = "node"
        self._node = self._construct(make)
        self._joined: Signature | None = None

    def _construct(self, make: Callable[[], Node]) -> Node:
        node, other = make(), make()
        self._name = type(node).__name__
        self.hold("construct", node is not other, "make() gave the same node twice")
        kind = KINDS.get(getattr(node, "kind", ""))
        self.hold("construct", kind is not None and isinstance(node, kind.node), f"not of the kinds {', '.join(KINDS)}")
        self.hold("construct", not isinstance(node, Cache), "a cache takes no tensors: see check_cache")
        self.hold("construct", node.digest() == other.digest(), "two nodes built alike have different digests")
        return node

    def hold(self, rule: str, holds: bool, otherwise: str) -> None:
        """Raise unless a rule holds."""
        if not holds:
            raise NodeContractError(f"{self._name} breaks the rule '{rule}': {otherwise}")

    def same(self, rule: str, found: Tensors, expected: Tensors, otherwise: str) -> None:
        """Raise unless two answers agree within the tolerance."""
        self.hold(rule, found.keys() == expected.keys(), f"{otherwise}: {list(found)}")
        for name, array in expected.items():
            self.hold(rule, _close(found[name], array, self._tolerance), f"{otherwise} (tensor {name!r})")

    @asynccontextmanager
    async def loaded(self) -> AsyncGenerator[None]:
        """Load, and unload whatever happens in between."""
        try:
            entered = await self._node.__aenter__()
        except Exception as error:
            raise NodeContractError(f"{self._name} breaks the rule 'load': {error!r}") from error
        try:
            self.hold("load", entered is self._node, "__aenter__ has to return self")
            yield
        finally:
            await self._node.__aexit__(None, None, None)

    async def call(self, request: Branches) -> Tensors:
        """Ask the node's verb, with a bound on its time."""
        try:
            async with asyncio.timeout(self._answers_within_s):
                return await self._ask(request)
        except TimeoutError:
            self.hold("in time", False, f"no answer within {self._answers_within_s} seconds")
            raise

    def _ask(self, request: Branches) -> Awaitable[Tensors]:
        verb = getattr(self._node, KINDS[self._node.kind].verb)
        return verb(request if isinstance(self._node, Aggregate) else request[""], Context())

    def check_signature(self, request: Branches) -> None:
        """The declared types, before anything is loaded."""
        signature = self._signature(request)
        for name, spec in (*signature.inputs.items(), *signature.outputs.items()):
            self.hold("signature", spec.shape[:1] == ("rows",), f"axis 0 of {name!r} has to be rows, not as in {spec}")
        for tensors in () if isinstance(self._node, Aggregate) else request.values():
            try:
                InputCheck(signature.inputs, node=self._name)(cast("Tensors", tensors))
            except InvalidInput as error:
                self.hold("signature", False, f"the example does not fit: {error.text}")

    def _signature(self, request: Branches) -> Signature:
        if not isinstance(self._node, Aggregate):
            return self._node.signature
        # Asked once, of the example: that branches fail changes nothing of what it was told it joins.
        if self._joined is None:
            branches = {name: _specs(branch) for name, branch in request.answers.items()}
            self._joined = Signature({}, self._node.join(branches))
        return self._joined

    async def check_answers(self, request: Branches) -> Tensors:
        """Shape, rows, zero rows, rows alone, inputs unchanged; returns the answer to the example."""
        before = _map(request, _copied)
        answer = await self.answer_to(request, "answer")
        self.hold("inputs unchanged", before == request, "the tensors it was given have other values now")
        rows = request.rows
        self._check_answer("rows", request, answer, rows)
        nothing = _take(request, 0, 0)
        self._check_answer("zero rows", nothing, await self.answer_to(nothing, "zero rows"), 0)
        for row in range(min(rows, _ROWS_ALONE)):
            part = _take(request, row, row + 1)
            alone = await self.answer_to(part, "rows alone")
            self._check_answer("rows alone", part, alone, 1)
            self.same("rows alone", alone, answer.take(row, row + 1), f"row {row} is answered otherwise in a batch")
        return answer

    async def check_needs(self, request: Branches, expected: Tensors) -> None:
        """Rows that only some branches have, and branches that failed."""
        if not isinstance(self._node, Aggregate):
            return
        needs = self._node.needs
        known = needs in ("every", "any", "none") or (type(needs) is tuple and all(one in request for one in needs))
        self.hold("needs", known, f"needs is {needs!r}: 'every', 'any', 'none', or a tuple of branches is meant")
        for join in partial_joins(request, needs):
            what = f"where {join.what}, and needs is {needs!r}"
            try:
                answer = await self.call(join.branches)
            except RequestError as error:
                self.hold("needs", not join.must_answer, f"no answer {what}: {error!r}")
                continue
            except NodeContractError:
                raise
            except Exception as error:
                raise NodeContractError(f"{self._name} breaks the rule 'needs': {error!r} {what}") from error
            self.hold("needs", join.may_answer, f"an answer {what}")
            self._check_answer("needs", join.branches, answer, request.rows)
            if join.lacks_nothing:
                self.same("needs", answer, expected, f"another answer {what}")
            for row in range(min(request.rows, _ROWS_ALONE)):
                alone = await self.answer_to(_take(join.branches, row, row + 1), "needs")
                self.same("needs", alone, answer.take(row, row + 1), f"row {row} is answered otherwise alone {what}")

    async def answer_to(self, request: Branches, rule: str) -> Tensors:
        """Ask, where a failure of any kind breaks `rule`."""
        try:
            return await self.call(request)
        except NodeContractError:
            raise
        except Exception as error:
            raise NodeContractError(f"{self._name} breaks the rule '{rule}': {error!r}") from error

    def _check_answer(self, rule: str, request: Branches, answer: object, rows: int) -> None:
        """Names, datatypes, shapes; `rule` is the one that the number of rows belongs to."""
        if not isinstance(answer, Tensors):
            raise NodeContractError(f"{self._name} breaks the rule 'answer': {type(answer).__name__} is not Tensors")
        signature = self._signature(request)
        wanted = signature.outputs
        self.hold("answer", answer.keys() == wanted.keys(), f"it gave {list(answer)} where {list(wanted)} are declared")
        for name, array in answer.items():
            self.hold("answer", not array.flags.writeable, f"tensor {name!r} can be written to")
            wrong = wanted[name].mismatch(array)
            self.hold("answer", not wrong, f"tensor {name!r} {wrong}")
            if answer.sources is None:
                self.hold(rule, array.shape[0] == rows, f"tensor {name!r} has {array.shape[0]} rows for {rows}")
        self._check_sources(answer, rows)
        if rows and not isinstance(self._node, Aggregate):
            given = cast("Tensors", request[""])
            sizes: dict[str, object] = {}
            for specs, tensors in ((signature.inputs, given), (wanted, answer)):
                for name, spec in specs.items():
                    if specs is wanted and self._node.expands:
                        spec = replace(spec, shape=("?", *spec.shape[1:]))
                    clash = _bind(spec, tensors[name], sizes)
                    self.hold("answer", not clash, f"tensor {name!r}: {clash} in {signature}")

    def _check_sources(self, answer: Tensors, rows: int) -> None:
        expands, sources = self._node.expands, answer.sources
        self.hold("sources", expands == (sources is not None), f"sources {sources}, and expands is {expands}")
        if sources is not None and len(sources):
            self.hold("sources", int(sources[-1]) < rows, f"a row of row {sources[-1]}, where {rows} were given")

    async def check_concurrency(self, request: Branches, count: int) -> None:
        """Different requests at the same time, against the same ones in turn."""
        rows = request.rows
        parts = [_take(request, index % (rows - 1), rows) for index in range(count)]
        serial = [await self.answer_to(part, "concurrency") for part in parts]
        calls = (self.answer_to(part, "concurrency") for part in parts)
        for one, other in zip(serial, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(other, BaseException):
                raise other
            self.same("concurrency", other, one, "a call made beside others is answered otherwise")

    async def check_event_loop(self, request: Branches, at_most_s: float) -> None:
        """How long a call keeps everything else waiting."""
        blocked_s = float("inf")
        for _ in range(_BLOCK_TRIES):
            blocked_s = min(blocked_s, await _longest_gap(self.call(request)))
            if blocked_s <= at_most_s:
                return
        self.hold("event loop", False, f"a call held it for {blocked_s:.3f} s; at most {at_most_s} s are allowed")

    async def check_cancellation(self, request: Branches, expected: Tensors) -> None:
        """A call that waits can be cancelled, and leaves nothing behind that harms the next."""
        task = asyncio.ensure_future(self._ask(request))
        await asyncio.sleep(0)  # it runs up to its first wait; a node that never waits is done by now
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=self._answers_within_s)
            self.hold("cancellation", task.done(), f"a cancelled call goes on for over {self._answers_within_s} s")
            self.hold("cancellation", task.cancelled(), "a cancelled call has to end with CancelledError")
        self.same(
            "cancellation",
            await self.answer_to(request, "cancellation"),
            expected,
            "after a cancelled call it answers otherwise",
        )

    async def check_bad_input(self, request: Branches, expected: Tensors) -> None:
        """The mesh keeps wrong requests away; a node that meets one all the same may fail, but not break."""
        for bad in _bad_requests(request):
            try:
                await self.call(bad)
            except NodeContractError:
                raise
            except Exception:
                pass  # which error it is, is the node's business
            again = await self.answer_to(request, "bad input")
            self.same("bad input", again, expected, "after a wrong request it answers otherwise")


def _map(request: Branches, change: Callable[[Tensors], Tensors]) -> Branches:
    changed = {name: change(branch) if isinstance(branch, Tensors) else branch for name, branch in request.items()}
    return Branches.trusted(changed, request.rows)


def _copied(tensors: Tensors) -> Tensors:
    return Tensors({name: array.copy() for name, array in tensors.items()}, sources=tensors.sources)


def _take(request: Branches, start: int, stop: int) -> Branches:
    return Branches(_map(request, lambda tensors: tensors.take(start, stop)), stop - start)


def _specs(tensors: Tensors) -> Mapping[str, TensorSpec]:
    return {name: TensorSpec(datatype_of(array).name, ("rows", *array.shape[1:])) for name, array in tensors.items()}


def _bad_requests(request: Branches) -> list[Branches]:
    """Nothing at all; other datatypes; a dimension too many; rows that differ."""

    def other_datatype(array: Array) -> Array:
        return np.zeros(array.shape, np.float32) if array.dtype.hasobject else np.full(array.shape, b"\xff", object)

    def each(change: Callable[[Array, int], Array]) -> Branches:
        return _map(request, lambda tensors: Tensors({n: change(a, i) for i, (n, a) in enumerate(tensors.items())}))

    return [
        _map(request, lambda tensors: Tensors({})),
        each(lambda array, index: other_datatype(array)),
        each(lambda array, index: array[..., None]),
        each(lambda array, index: array[index:]),
    ]


def _bind(spec: TensorSpec, array: Array, sizes: dict[str, object]) -> str:
    """Note the size of every symbol; says which one has two."""
    shape, given = spec.shape, array.shape
    if shape[-1] == "...":
        rest = given[len(shape) - 1 :]
        if sizes.setdefault("...", rest) != rest:
            return f"further dimensions {list(rest)} where others are {sizes['...']}"
        shape, given = shape[:-1], given[: len(shape) - 1]
    for symbol, size in zip(shape, given, strict=True):
        if isinstance(symbol, str) and symbol != "?" and sizes.setdefault(symbol, size) != size:
            return f"{symbol} is {size} where others have {sizes[symbol]}"
    return ""


def _close(found: Array, expected: Array, tolerance: float) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if expected.dtype.kind in "biu" or expected.dtype.hasobject:
        return found.tolist() == expected.tolist()
    return np.allclose(
        found.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _alive_threads() -> set[threading.Thread]:
    # The event loop's own threads stay for the next call.
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def _longest_gap(work: Awaitable[object]) -> float:
    """Seconds for which nothing else could run while `work` was awaited."""
    longest, last = 0.0, time.perf_counter()

    async def tick() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticker = asyncio.create_task(tick())
    try:
        await asyncio.sleep(2 * _TICK_S)
        longest, last = 0.0, time.perf_counter()
        await work
        return max(longest, time.perf_counter() - last)
    finally:
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
