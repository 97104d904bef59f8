"""Processes that serve or call, and what they are asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from bench.wire.rounds import Sample

__all__ = ["Caller", "Child", "Server"]

STOP_TIMEOUT_S = 10.0


class Child:
    """A process that answers a line with a line, and ends when its standard input does."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent.parent,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a child without pipes")
        self._to: IO[str] = self._process.stdin
        self._from: IO[str] = self._process.stdout
        self.first = self._line()

    def _line(self) -> str:
        line = self._from.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args[1:])} ended: {self._process.wait()}")  # pyright: ignore
        return line.strip()

    def ask(self, line: str = "") -> str:
        """Its answer."""
        self._to.write(f"{line}\n")
        self._to.flush()
        return self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._from.close()


class Server(Child):
    """A server of a contender.

    Args:
        engine: Its name in `ENGINES`.
        path: Of a unix socket to listen at; a port of the loopback otherwise.
    """

    def __init__(self, engine: str, path: str | None = None) -> None:
        super().__init__("bench.wire.serving", engine, f"unix:{path}" if path else "127.0.0.1:0")
        self.port = int(self.first)
        self.target = f"unix:{path}" if path else f"127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """CPU seconds that it has taken."""
        return float(self.ask())


class Caller(Child):
    """A client of a contender.

    Args:
        engine: Its name in `ENGINES`.
        server: Whom it calls.
    """

    def __init__(self, engine: str, server: Server) -> None:
        super().__init__("bench.wire.dialling", engine, server.target)
        self._server = server

    def sample(self, *, seconds: float, size: int = 300, in_flight: int) -> Sample:
        """Call for some time."""
        told: dict[str, Any] = {"size": size, "in_flight": in_flight, "seconds": seconds}
        before = self._server.cpu()
        answer = json.loads(self.ask(json.dumps(told)))
        return Sample(**answer, server_cpu=self._server.cpu() - before)
