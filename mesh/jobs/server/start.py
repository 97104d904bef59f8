"""Becomes a store server, once no other has its folder; run as a script, before the program by `exec`.

The lock is the server's own from then on: a server that outlived its mesh, which was killed, keeps the next one out
until it is gone. As a script this imports nothing of Mesh.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

__all__ = ["become"]

_EXIT_SETUP = 2
"""As in `mesh.supervisor.machine`."""
_POLL_S = 0.02


def become(lock: str, wait_s: float, argv: list[str]) -> str:
    """Lock a file and become a program, which holds the lock until it ends.

    Returns:
        Why that could not be.
    """
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        os.set_inheritable(file, True)
        ends = time.monotonic() + wait_s
        while not _locked(file):
            if time.monotonic() >= ends:
                return f"{lock}: another server has this folder, and did not go within {wait_s:g}s"
            time.sleep(_POLL_S)
    except OSError as error:
        return f"{lock}: {error.strerror}"
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    print(become(sys.argv[1], float(sys.argv[2]), sys.argv[3:]), file=sys.stderr)
    sys.exit(_EXIT_SETUP)
