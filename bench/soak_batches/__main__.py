"""`make soak`, its second part: batches, while workers, the store, the gateway and all of them are killed.

Two batches of rows whose answers are known, some of which fail: one by `mesh batch run`, which is resumed each time
that all of it was killed; one by a `mesh up` that was asked for it, and is started again. Each kill is SIGKILL, at a
random moment. In the end every row has to be there once, as the answer or the error that it should be.

    python -m bench.soak_batches                          # 250,000 rows and 30 kills each
    python -m bench.soak_batches --rows 2000000 --kills 250

Ends with 1 where anything is missing, doubled, wrong or changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.measure import machine
from bench.report import write_page
from bench.soak_batches.running import WAYS, soak
from bench.soak_batches.told import sound, table

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    """Run them, write `bench/results/soak_batches.json`, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak_batches", description="batches, and what runs them is killed"
    )
    parser.add_argument("--rows", type=int, default=250_000, help="of each batch")
    parser.add_argument("--kills", type=int, default=30, help="of what runs each batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "soak_batches.json")
    asked = parser.parse_args()
    runs: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        runs[way] = asyncio.run(soak(way, asked.rows, asked.kills, seed=asked.seed))
        print(way, json.dumps(runs[way]), flush=True)
    result = {"topic": "soak_batches", "machine": machine(), "seed": asked.seed, "runs": runs}
    asked.output.write_text(json.dumps(result, indent=2) + "\n")
    write_page(RESULTS)
    print(table(result))
    return 0 if all(sound(one, asked.kills) for one in runs.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
