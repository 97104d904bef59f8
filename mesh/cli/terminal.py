"""What people see: tables, and a word when something takes long."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mesh.units import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["duration", "output", "printable", "saying"]

PIPED_COLUMNS = 4096
"""Width where nobody looks: a line for another program is not wrapped or cut."""
SILENT_S = 1.0
"""How long something may take without a word."""


def output() -> Console:
    """Standard output: with colours on a terminal, plain text where it is piped. Nothing in a text is markup."""
    from rich.console import Console  # a tenth of a second to import: only where it is needed

    width = None if sys.stdout.isatty() else PIPED_COLUMNS
    return Console(width=width, markup=False, highlight=False, emoji=False)


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
        print(f"{what} ...", end="\r", file=sys.stderr, flush=True)

    timer = asyncio.get_running_loop().call_later(SILENT_S, say)
    try:
        yield
    finally:
        timer.cancel()
        if said:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(text: str) -> float:
    """A duration as an argument, in seconds.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
