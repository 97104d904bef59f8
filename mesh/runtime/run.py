"""`Run`: one request through a graph whose steps run side by side.

Each step is a task while it waits. A step that fails takes those with it that cannot do without it; the request fails
when an output of the graph is among them. A step that nobody waits for any more is cancelled: what feeds a join that
has run already, and what feeds only a step that failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from mesh.context import Timer
from mesh.errors import DeadlineExceeded, RequestError
from mesh.runtime.joining import Joining, Verdict
from mesh.runtime.program import Program
from mesh.runtime.state import State
from mesh.runtime.steps import JoinStep

__all__ = ["Ended", "Run"]

log = logging.getLogger("mesh.runtime")

CUT_OFF_S = 1.0
"""How long steps that were cancelled may take to end before nobody waits for them any more."""

Ended = Callable[[int, RequestError | None], object]
"""Told of each step that ends: its number, and why it gives nothing if so."""


class Run:
    """One request.

    Args:
        program: What to run.
        state: The request; filled as it runs.
        ended: Told of each step that ends, in the order in which they do.
    """

    def __init__(self, program: Program, state: State, ended: Ended | None = None) -> None:
        self._program = program
        self._state = state
        self._told = ended
        self._missing = list(program.missing)
        self._holders = list(program.holders)
        self._unanswered = len(program.gives)
        self._done: set[int] = set()
        """Steps that ended, or that nobody waits for any more."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ready: list[int] = []
        self._timers: list[Timer] = []
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._failure: Exception | None = None
        self._joinings: dict[int, Joining] = {}

    async def __call__(self) -> None:
        """Run to the end. Nothing is left running, but for steps that are cancelled and do not end within `CUT_OFF_S`.

        Raises:
            RequestError: The first thing that went wrong and that an output could not do without.
        """
        try:
            for index, step in self._program.joins.items():
                self._join(index, step)
            self._start(self._program.first)
            await self._over
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._tasks:
                await self._cut_off()
            # Errors know by their tracebacks who knows them: no cycle is left behind.
            self._state.errors = {}
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure

    async def _cut_off(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        _, left = await asyncio.wait(self._tasks.values(), timeout=CUT_OFF_S)
        if left:
            names = [self._program.steps[index].name for index, task in self._tasks.items() if task in left]
            log.warning("%s went on though cancelled, on request %s", ", ".join(names), self._state.context.request_id)

    def _join(self, index: int, step: JoinStep) -> None:
        assert step.join is not None
        self._joinings[index] = Joining(step.join, step.branches)
        clock = self._state.context.clock
        arrived = clock.now()
        if step.join.deadline_s is not None:
            self._timers.append(clock.call_at(arrived + step.join.deadline_s, partial(self._due, index)))
        for branch, timeout_s in step.join.timeouts_s.items():
            self._timers.append(clock.call_at(arrived + timeout_s, partial(self._too_late, index, branch)))

    # Steps that can run.

    def _start(self, ready: Sequence[int]) -> None:
        for index in ready:
            if index not in self._done:
                self._tasks[index] = self._loop.create_task(self._follow(index))

    def _taken_ready(self) -> list[int]:
        ready, self._ready = self._ready, []
        return [index for index in ready if index not in self._done]

    async def _follow(self, index: int) -> None:
        """Run a step, then one that it made ready; the others get tasks of their own."""
        error: RequestError | None = None
        while True:
            try:
                await self._program.steps[index].run(self._state)
            except RequestError as failed:
                error = failed
            except asyncio.CancelledError:
                self._tasks.pop(index, None)
                raise
            except Exception as fault:
                self._tasks.pop(index, None)
                self._finish(fault)
                return
            task = self._tasks.pop(index)
            self._end(index, error)
            error = None  # its traceback knows this frame
            ready = self._taken_ready()
            if self._over.done() or not ready:
                return
            index = ready[0]
            self._tasks[index] = task
            self._start(ready[1:])

    # What follows from the end of a step.

    def _end(self, index: int, error: RequestError | None) -> None:
        """A step gave what it gives, or never will; and those end with it that cannot do without."""
        ends: list[tuple[int, RequestError | None]] = [(index, error)]
        for ended, why in ends:
            if ended in self._done:
                continue
            self._done.add(ended)
            name = self._program.steps[ended].name
            if why is None:
                self._state.ended[name] = self._state.context.clock.now()
            else:
                self._state.errors[name] = why
                self._missed(ended)
            self._tell(ended, why)
            if ended in self._program.gives:
                self._unanswered -= 1
                if why is not None:
                    self._finish(why)
                elif self._unanswered == 0:
                    self._finish(None)
            fed = [one for one in self._program.followers[ended] if one not in self._done]
            failures = [(one, self._feed(one, ended, why)) for one in fed]
            ends += [(one, failed) for one, failed in failures if failed is not None]
            self._release(ended, self._program.feeds[ended])

    def _tell(self, index: int, error: RequestError | None) -> None:
        # What ends in the same turn as the request is not told of: its end comes last.
        if self._told is not None and not self._over.done():
            self._told(index, error)

    def _missed(self, index: int) -> None:
        """Count the branches of a join that will not run."""
        joining = self._joinings.get(index)
        if joining is not None and not joining.ran:
            self._program.joins[index].outcomes.missed(self._state, joining)

    def _feed(self, follower: int, index: int, error: RequestError | None) -> RequestError | None:
        """Tell a step of the end of one that feeds it; returns why it cannot run any more, if so."""
        self._missing[follower] -= 1
        joining = self._joinings.get(follower)
        if joining is None:
            if error is None and self._missing[follower] == 0:
                self._ready.append(follower)
            return error
        name = self._program.steps[index].name
        if name not in joining.pending:
            return None
        if error is not None:
            return self._decided(follower, joining.fail(name, error))
        has_rows = self._state.given_by(name).count > 0 or self._state.all.count == 0
        return self._decided(follower, joining.answered(name, has_rows=has_rows))

    def _decided(self, index: int, verdict: Verdict, *, due: bool = False) -> RequestError | None:
        """Make a join ready that can run; returns why it never will, if so."""
        if verdict is Verdict.FAIL:
            error = self._joinings[index].error()
            error.locate(node=self._program.steps[index].name, request_id=self._state.context.request_id)
            return error
        if verdict is Verdict.RUN and index not in self._ready and index not in self._tasks:
            if not due and self._is_short(index):
                return None
            self._ready.append(index)
            self._joinings[index].ran = True
            # What is not there by now is not waited for.
            self._release(index, self._program.feeds[index])
        return None

    def _is_short(self, index: int) -> bool:
        """Whether a join, though it has the branches that it needs, has some row on fewer of them than it could."""
        step, joining = self._program.joins[index], self._joinings[index]
        assert step.join is not None
        return bool(joining.pending) and not step.covered(self._state, joining.there, step.join.quorum)

    def _release(self, holder: int, feeders: Sequence[int]) -> None:
        """A step waits for those that feed it no more; where nobody does, they are over, and release theirs."""
        releases = [(holder, feeders)]
        for one, before in releases:
            for feeder in before:
                if feeder in self._done:
                    continue
                self._holders[feeder] &= ~(1 << one)
                if self._holders[feeder] == 0:
                    self._done.add(feeder)
                    if (task := self._tasks.get(feeder)) is not None:
                        task.cancel()
                    releases.append((feeder, self._program.feeds[feeder]))

    # Time.

    def _due(self, index: int) -> None:
        if index in self._done or index in self._tasks:
            return
        joining = self._joinings[index]
        late, verdict = list(joining.pending), joining.due()
        for branch in late:
            self._give_up(index, branch, self._late(branch))
        self._settle(index, verdict, due=True)

    def _too_late(self, index: int, branch: str) -> None:
        joining = self._joinings[index]
        if index in self._done or index in self._tasks or branch not in joining.pending:
            return
        error = self._late(branch)
        verdict = joining.fail(branch, error)
        self._give_up(index, branch, error)
        self._settle(index, verdict)

    def _late(self, branch: str) -> DeadlineExceeded:
        return DeadlineExceeded("was not there in time", node=branch, request_id=self._state.context.request_id)

    def _give_up(self, index: int, branch: str, error: DeadlineExceeded) -> None:
        """A join waits for a branch no more, because it is late. One that somebody else waits for may yet come."""
        feeds = self._program.feeds[index]
        feeder = next(one for one in feeds if self._program.steps[one].name == branch)
        self._release(index, (feeder,))
        if feeder in self._done:
            self._tell(feeder, error)

    def _settle(self, index: int, verdict: Verdict, *, due: bool = False) -> None:
        failed = self._decided(index, verdict, due=due)
        if failed is not None:
            self._end(index, failed)
        self._start(self._taken_ready())

    def _finish(self, error: Exception | None) -> None:
        if self._over.done():
            return
        self._failure = error
        self._over.set_result(None)
