"""`make bench`: measure everything, write `bench/results/<topic>.json` and the tables in `docs/performance.md`."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bench import batches, batching, caches, compiling, flow, fused_chain, jobs, remote_hop
from bench.measure import machine
from bench.report import write_page
from bench.wire import suite as wire

RESULTS = Path(__file__).resolve().parent / "results"
TOPICS: dict[str, Callable[[], Coroutine[Any, Any, dict[str, Any]]]] = {
    "fused_chain": fused_chain.run,
    "flow": flow.run,
    "batching": batching.run,
    "remote_hop": remote_hop.run,
    "wire": wire.run,
    "caches": caches.run,
    "jobs": jobs.run,
    "batches": batches.run,
    "compiling": compiling.run,
}


def main() -> None:
    """Measure the topics that are named, all of them if none is."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="default: all")
    chosen = parser.parse_args().topics or list(TOPICS)
    RESULTS.mkdir(exist_ok=True)
    for topic in chosen:
        print(f"measuring {topic} ...", flush=True)
        found = {"topic": topic, "machine": machine(), **asyncio.run(TOPICS[topic]())}
        (RESULTS / f"{topic}.json").write_text(json.dumps(found, indent=2) + "\n")
    write_page(RESULTS)


if __name__ == "__main__":
    main()
