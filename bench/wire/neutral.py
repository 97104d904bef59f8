"""h2load, of Debian's nghttp2-client: a client that neither we nor grpcio's authors wrote."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench.wire.child import Server
from bench.wire.engines import SERVICE
from bench.wire.load import FRAMED
from bench.wire.rounds import Sample

__all__ = ["PROGRAM", "Neutral"]

PROGRAM = shutil.which("h2load")
"""Where it is, if it is."""
TIMEOUT_S = 60.0


class Neutral:
    """Loads a server with calls of `Once`.

    Args:
        calls: How many.
        connections: Over how many connections.
        in_flight: On each of them.
    """

    def __init__(self, server: Server, *, calls: int, connections: int, in_flight: int) -> None:
        self._server = server
        self._calls = max(calls // connections, 1) * connections
        self._connections = connections
        self._in_flight = in_flight

    def sample(self) -> Sample:
        """Run it once. Raises RuntimeError where a call failed."""
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "request"
            data.write_bytes(FRAMED)
            command = [
                *(PROGRAM or "h2load", "-n", str(self._calls), "-c", str(self._connections)),
                *("-m", str(self._in_flight), "-d", str(data), "-H", "content-type: application/grpc"),
                *("-H", "te: trailers", f"http://127.0.0.1:{self._server.port}/{SERVICE}/Once"),
            ]
            cpu, began = self._server.cpu(), time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
            seconds, cpu = time.perf_counter() - began, self._server.cpu() - cpu
        succeeded = re.search(r"(\d+) succeeded", done.stdout)
        if succeeded is None or int(succeeded[1]) != self._calls:
            raise RuntimeError(f"h2load: not every call succeeded\n{done.stdout}")
        return Sample(units=self._calls, seconds=seconds, cpu=cpu)
