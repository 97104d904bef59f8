"""Three real nats-servers on loopback that keep everything three times, for tests: each may be killed and come back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.harness.nats import Nats, free_port

__all__ = ["nats_cluster"]


@contextmanager
def nats_cluster(size: int = 3) -> Generator[list[Nats]]:
    """Running servers that know each other; they end with the block, and what they stored goes.

    They take connections before they have agreed on anything.
    """
    routes = [free_port() for _ in range(size)]
    known = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
    with TemporaryDirectory(prefix="nats-") as folder:
        servers = [
            Nats(
                Path(folder) / str(index),
                f"server_name: server-{index}",
                "cluster {",
                "name: cluster",
                f'listen: "127.0.0.1:{port}"',
                f"routes: [{known}]",
                "}",
            )
            for index, port in enumerate(routes)
        ]
        try:
            for server in servers:
                server.start()
            yield servers
        finally:
            for server in servers:
                server.kill()
