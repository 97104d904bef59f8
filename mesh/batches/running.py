"""`BatchRunner`: shards of a batch through a graph, one at a time.

One thread reads and makes tensors, another makes columns and writes; between them a bounded number of requests are with
the graph. So what is in memory is those requests and their answers, the first ones of the next shard, and the row group
that is being filled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

from mesh.batches.asking import Answers, Asking, Patience
from mesh.batches.columns import feeds_of_plan
from mesh.batches.coming import Coming, Request
from mesh.batches.convert import Conversion, Converted
from mesh.batches.folder import OutputFolder
from mesh.batches.inputs import Input, Reading, RowsRead, reason, regrouped
from mesh.batches.parts import Commit, PartWriter, commit_of
from mesh.batches.pausing import to_the_end
from mesh.batches.plan import BatchPlan, Shard
from mesh.batches.results import write_rows
from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import Unavailable
from mesh.handler import Handler
from mesh.signature import TensorSpec
from mesh.tensors import Tensors

__all__ = ["BatchRunner", "Told"]

_READ_AHEAD = 2
"""Requests that the thread which reads is told to read at once: it goes from one to the next without the loop."""
_AHEAD = 6
"""Requests that are read, or wait to be written, beside those that are with the graph: a row group is encoded every now
and then, and neither the graph nor who reads should wait for that. Measured: with 3, a quarter slower."""

Told = Callable[[int, int], object]
"""Told of how many rows were answered, and how many failed, since it was last told."""
T = TypeVar("T")


class BatchRunner:
    """An async context manager; runs one shard after another.

    Args:
        folder: Where results are written.
        plan: What is run over what.
        source: The input, open. It is closed with this.
        inputs: What the graph takes.
        handler: The graph.
        patience: How often a request is asked again.
        clock: What waits are measured by.
    """

    def __init__(
        self,
        folder: OutputFolder,
        plan: BatchPlan,
        source: Input,
        inputs: Mapping[str, TensorSpec],
        handler: Handler[Tensors],
        *,
        patience: Patience | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._folder, self._plan, self._source = folder, plan, source
        self._convert = Conversion(feeds_of_plan(inputs, plan.columns, source))
        self._ask = Asking(handler, list(plan.outputs), parameters=plan.parameters, patience=patience, clock=clock)
        self._reader = ThreadPoolExecutor(1, "batch-read")
        self._writer = ThreadPoolExecutor(1, "batch-write")
        self._is_reading = False
        """Whether rows of the shard that is run are still to be read."""
        self._next: Shard | None = None
        self._prepared: tuple[Shard, Coming] | None = None

    async def __aenter__(self) -> Self:
        """Nothing is done yet."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the input, and wait for the threads."""
        if self._prepared is not None:
            await self._prepared[1].close()
        await to_the_end(asyncio.wrap_future(self._reader.submit(self._source.close)))
        self._reader.shutdown()
        self._writer.shutdown()

    async def run(self, shard: Shard, *, most_errors: int | None = None, told: Told | None = None) -> Commit:
        """Run one shard, and make its results visible. Where it fails or is cancelled, it leaves nothing; where another
        attempt has written it, it is not run.

        Args:
            shard: Which.
            most_errors: Rows of it that may fail; all where None.
            told: Told as it goes on.

        Returns:
            What its part says: the part of another attempt, where one was first.

        Raises:
            RequestError: The graph could not be asked, or files could not be read or written, as long as patience went.
            TooManyErrors: More rows failed than may.
            SetupError: The input is not what it was; or what is there is of another batch.
        """
        written = await self._in_writer(lambda: commit_of(self._folder, self._plan, shard.number))
        if written is not None:
            return written
        part = await self._in_writer(lambda: PartWriter(self._folder, self._plan, shard, self._source.schema))
        try:
            await self._flow(shard, part, most_errors, told)
            # Nothing of this shard waits for anything but the disk.
            self._read_next(self._plan.in_flight + _AHEAD)
            await self._in_reader(lambda: self._source.check(shard.start, shard.stop))
            commit, _ = await self._in_writer(part.commit)
        except BaseException:
            # Behind whatever the writer is doing, and waited for.
            await to_the_end(asyncio.wrap_future(self._writer.submit(part.abandon)))
            raise
        return commit

    async def _flow(self, shard: Shard, part: PartWriter, most_errors: int | None, told: Told | None) -> None:
        """Read, ask and write, side by side; written in the order of the rows."""
        plan, coming = self._plan, await self._begun(shard)
        asking, room = asyncio.Semaphore(plan.in_flight), asyncio.Semaphore(plan.in_flight + _AHEAD)
        # `room` bounds it.
        asked: asyncio.Queue[tuple[RowsRead, asyncio.Task[Answers]] | None] = asyncio.Queue()

        async def ask(converted: Converted) -> Answers:
            async with asking:
                return await self._answers(converted)

        async def read() -> None:
            for _ in range(coming.ahead):
                await room.acquire()
            while True:
                while coming.ahead < _READ_AHEAD:
                    await room.acquire()
                    coming.ask()
                if (found := await _readable(coming.take())) is None:
                    self._is_reading = False
                    self._read_next()
                    return asked.put_nowait(None)
                asked.put_nowait((found[0], group.create_task(ask(found[1]))))

        async def write() -> None:
            while (one := await asked.get()) is not None:
                rows, answers = one[0], await one[1]
                done, failed = await self._in_writer(partial(write_rows, plan, part, rows, answers, most_errors))
                room.release()
                if told is not None:
                    told(done, failed)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                group.create_task(write())
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._is_reading = False
            await coming.close()

    def prepare(self, shard: Shard) -> None:
        """Say which shard is run next: its first requests are read while the one before is ended."""
        self._next = shard
        self._read_next()

    def _read_next(self, most: int = _READ_AHEAD) -> None:
        """Have the first requests of the next shard read, if it is known and nothing else is to be read."""
        if self._next is not None and self._prepared is None and not self._is_reading:
            shard, self._next = self._next, None
            self._prepared = shard, Coming(self._reader, self._requests(shard))
        while self._prepared is not None and self._prepared[1].ahead < most:
            self._prepared[1].ask()

    async def _begun(self, shard: Shard) -> Coming:
        """The requests of a shard: those that are being read already, where it was said that it is next."""
        prepared, self._prepared, self._next = self._prepared, None, None
        self._is_reading = True
        if prepared is not None:
            if prepared[0] == shard:
                return prepared[1]
            await prepared[1].close()
        return Coming(self._reader, self._requests(shard))

    def _requests(self, shard: Shard) -> Generator[Request]:
        plan = self._plan
        reading = Reading(
            start=shard.start,
            stop=shard.stop,
            columns=tuple(dict.fromkeys([*self._convert.columns, *plan.keep])),
            most_rows=plan.request_rows,
            most_bytes=plan.request_bytes,
        )
        for piece in regrouped(self._source.read(reading), plan.request_rows, plan.request_bytes):
            yield piece, self._convert(piece)

    async def _answers(self, converted: Converted) -> Answers:
        answers = Answers(failed=dict(converted.failed))
        for places, tensors in converted.groups:
            await self._ask(places, tensors, answers)
        return answers

    async def _in_reader(self, work: Callable[[], T]) -> T:
        return await _readable(asyncio.get_running_loop().run_in_executor(self._reader, work))

    async def _in_writer(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)
        except OSError as error:
            raise Unavailable(f"the results cannot be written: {reason(error)}") from error


async def _readable(reading: Awaitable[T]) -> T:
    try:
        return await reading
    except OSError as error:
        raise Unavailable(f"the input cannot be read: {reason(error)}") from error


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first; what followed from it does not matter."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
