"""`BatchProgress`: a bar with rows, rows a second and the time left, on a terminal; nothing where nobody looks."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

from mesh.jobs.batches.messages import Batch

__all__ = ["BatchProgress"]


class BatchProgress:
    """A context manager that shows how far a batch is, on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task("reading the input", total=None, failed="", rate="")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, batch: Batch) -> None:
        """Show where it stands."""
        if self._bar is None or not batch.rows:
            return
        ended = batch.rows_done + batch.rows_failed
        now = time.monotonic()
        # What was written before this run does not count for its speed.
        self._first = self._first or (now, ended)
        since_s, before = self._first
        rate = f"{(ended - before) / (now - since_s):,.0f} rows/s" if now > since_s and ended > before else ""
        failed = f"{batch.rows_failed:,} failed" if batch.rows_failed else ""
        self._bar.update(self._task, description="rows", total=batch.rows, completed=ended, failed=failed, rate=rate)


def _bar() -> Any:
    from rich.console import Console  # a tenth of a second to import: only where it is needed
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}"),
        console=Console(stderr=True),
        transient=True,
    )
