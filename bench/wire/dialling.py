"""A process that calls as it is told: `python -m bench.wire.dialling ENGINE TARGET`.

Each line of its standard input is JSON, `{"size": bytes, "in_flight": calls, "seconds": how long}`; each is answered by
`{"units": calls, "seconds": how long it took, "cpu": CPU seconds of this process}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from bench.wire.engines import ENGINES, OPTIONS, SERVICE

__all__: list[str] = []

TIMEOUT_S = 30.0


async def _sample(ask: Any, *, size: int, in_flight: int, seconds: float) -> dict[str, float]:
    message = bytes(size)
    calls = 0
    cpu, began = time.process_time(), time.perf_counter()
    until = began + seconds

    async def caller() -> None:
        nonlocal calls
        while time.perf_counter() < until:
            answer = await ask(message, timeout=TIMEOUT_S)
            if len(answer) != size:
                raise RuntimeError(f"{len(answer)} bytes came back of {size}")
            calls += 1

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return {"units": calls, "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


async def _dial(engine: str, target: str) -> None:
    loop = asyncio.get_running_loop()
    async with ENGINES[engine].channel(target, OPTIONS[:2]) as channel:
        await channel.channel_ready()
        ask = channel.unary_unary(f"/{SERVICE}/Once")
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await _sample(ask, **json.loads(line))), flush=True)


if __name__ == "__main__":
    ENGINES[sys.argv[1]].run(_dial(sys.argv[1], sys.argv[2]))
