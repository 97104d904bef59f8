"""What people see: tables, and a word when something takes long."""

from __future__ import annotations

import argparse
import asyncio
import io
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mesh.units import parse_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["WIPE", "duration", "printable", "run_until_interrupted", "saying", "show"]

T = TypeVar("T")

WIPE = "\r\033[K"
"""Back to the beginning of the line, and away with what stands there."""

PIPED_COLUMNS = 4096
"""Width where nobody looks: a line for another program is not wrapped or cut."""
SILENT_S = 1.0
"""How long something may take without a word."""


def show(*things: RenderableType) -> None:
    """Print tables and texts: with colours on a terminal, plain lines where they are piped."""
    from rich.console import Console  # a tenth of a second to import: only where it is needed

    if sys.stdout.isatty():
        Console(highlight=False).print(*things, sep="\n")
        return
    piped = Console(file=io.StringIO(), width=PIPED_COLUMNS)
    with piped.capture() as captured:
        piped.print(*things, sep="\n")
    for line in captured.get().splitlines():
        print(line.rstrip())


def printable(text: str) -> str:
    """A text from outside as one line that does nothing to a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


@contextmanager
def saying(what: str) -> Generator[None]:
    """Say on a terminal what is waited for, from the second second on; the line is wiped out at the end."""
    if not sys.stderr.isatty():
        yield
        return
    said = False

    def say() -> None:
        nonlocal said
        said = True
        print(f"{what} ...", end="", file=sys.stderr, flush=True)

    timer = asyncio.get_running_loop().call_later(SILENT_S, say)
    try:
        yield
    finally:
        timer.cancel()
        if said:
            print(WIPE, end="", file=sys.stderr, flush=True)


def run_until_interrupted(
    work: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run something to its end; Ctrl-C cancels it.

    As `asyncio.run`, whose own handler may be late: a signal in the instant before the loop goes to sleep does not wake
    it up. A handler of the loop does.

    Raises:
        KeyboardInterrupt: It was cancelled so, and ended by that.
    """

    async def interruptible() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            return await work
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            return runner.run(interruptible())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def duration(text: str) -> float:
    """A duration as an argument, in seconds.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
