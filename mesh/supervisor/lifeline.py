"""No process outlives its supervisor, even one that was killed with SIGKILL and could tell nobody.

Two lines, because neither is enough:

- On Linux the kernel sends SIGKILL to the process when its parent dies (`PR_SET_PDEATHSIG`). It holds when the process
  is stuck in foreign code, ignores every signal, or has not reached its first import. To be there from the first
  instant it is set by this file, run as a script in place of the process: it arms itself, checks that the parent
  is still there, and becomes the process by `exec`, which keeps the setting. So the supervisor needs no help from
  what it runs, and a fork in a program with threads never runs Python code.
- Everywhere, the process's standard input is a pipe whose other end only the supervisor holds, and its end means
  that the supervisor is gone. A process that calls `hold_lifeline` then drains (SIGTERM), and is ended if it does not.

As a script this imports nothing of Mesh.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence

__all__ = ["hold_lifeline", "tied"]

_PR_SET_PDEATHSIG = 1
_EXIT_SETUP = 2
"""As in `mesh.supervisor.machine`, which a script cannot import."""


def tied(argv: Sequence[str], *, parent: int) -> tuple[str, ...]:
    """The command that runs `argv` and dies with the process `parent`, its parent. Where that is not Linux: `argv`.

    Exits with code 2 where the program cannot be run.
    """
    if sys.platform != "linux":
        return tuple(argv)
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), str(parent), *argv)


def hold_lifeline(*, grace_s: float = 10.0) -> None:
    """Leave when the supervisor is gone: SIGTERM to this process, and SIGKILL if it is still there after `grace_s`.

    Call it first thing, once, and only in a process that a supervisor started: it takes standard input for itself
    (what reads it later finds it empty), and leaves when that ends.
    """
    _die_with_parent()
    lifeline = os.dup(0)  # not inherited by what this process starts, which would keep it open
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    threading.Thread(target=_watch, args=(lifeline, grace_s), name="lifeline", daemon=True).start()


def _watch(lifeline: int, grace_s: float) -> None:
    try:
        while os.read(lifeline, 4096):
            pass
    except OSError:
        pass  # a reset is an end, too
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _become(parent: int, argv: list[str]) -> None:
    _die_with_parent()
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        sys.exit(_EXIT_SETUP)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
