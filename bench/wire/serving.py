"""A process that serves until nobody holds its standard input: `python -m bench.wire.serving ENGINE ADDRESS`."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

from bench.wire.engines import ENGINES, echo_server

__all__: list[str] = []


def _answer(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    """Every line asks for the CPU seconds that the system has counted for this process, all threads of it."""
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    loop.call_soon_threadsafe(over.set)


async def _serve(engine: str, address: str) -> None:
    made = echo_server(engine)
    port = made.add_insecure_port(address)
    await made.start()
    over = asyncio.Event()
    threading.Thread(target=_answer, args=(asyncio.get_running_loop(), over), daemon=True).start()
    print(port, flush=True)
    await over.wait()


if __name__ == "__main__":
    ENGINES[sys.argv[1]].run(_serve(sys.argv[1], sys.argv[2]))
