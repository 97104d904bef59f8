"""`make soak`: jobs under load, while workers, gateway, store and supervisor are killed at random moments.

A real `mesh up` with its own store; each kill is SIGKILL, and a supervisor that was killed (which takes everything else
with it) is started again on the same data folder. Load goes on all the time: callers that repeat what was not answered,
with an idempotency key, and look at each job until they have seen its end. At the end everything is ended in its own
way and started anew, and every job that was ever acknowledged is looked at once more.

The ledger of what was acknowledged, and of what was visible under each id, is in this process, which nobody kills.

    make soak                                     # 100,000 jobs, 100 kills
    make soak JOBS=1000000 KILLS=1000             # the long run

Ends with 1 where anything was lost, wrong, doubled or changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bench.measure import machine
from bench.report import write_page
from bench.soak.killing import shared_out
from bench.soak.running import soak
from bench.soak.told import table
from mesh.runtime.loop import loop_factory

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    """Run it, write `bench/results/soak.json`, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="jobs, and what runs them is killed")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=200, help="jobs at once whose end was not seen yet")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        told = runner.run(soak(asked.jobs, shared_out(asked.kills), seed=asked.seed, in_flight=asked.in_flight))
    result = {"topic": "soak", "machine": machine(), **told}
    asked.output.write_text(json.dumps(result, indent=2) + "\n")
    write_page(RESULTS)
    print(table(told))
    print("\n".join(told["told"]))
    sound = not told["faults"] and not told["lost"] and not told["survivors"] and told["acknowledged"] == asked.jobs
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
