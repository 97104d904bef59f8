"""What `mesh batch run` reaches over the rated sentences: for scripts/measure_patterns.py."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mesh.batches.arrow import parquet

__all__ = ["batch"]

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = ROOT / "models" / "fetched" / "sentences.parquet"
WORKERS = (1, 2)


async def batch() -> dict[str, Any]:
    """By so many workers: how long it takes, and how good the labels are on sentences that no model learnt from."""
    return await asyncio.to_thread(_all)


def _all() -> dict[str, Any]:
    if not SENTENCES.exists():
        subprocess.run([sys.executable, "models/make_sentences.py"], cwd=ROOT, check=True)
    return {"workers": {str(workers): _measured(workers) for workers in WORKERS}}


def _measured(workers: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        found = _run(workers, output)
        table = parquet.read_table(output / "parts")
    label, rating, unseen = (table.column(name).to_numpy() for name in ("label", "rating", "test"))
    right = label == (rating > 0)
    accuracy = {"accuracy": round(float(right[unseen].mean()), 4), "judged": int(np.count_nonzero(unseen))}
    return found | accuracy


def _run(workers: int, output: Path) -> dict[str, Any]:
    asked = ["batch", "run", "topologies/batch.yaml", "--input", str(SENTENCES), "--output", str(output), "--json"]
    more = ["--keep", "rating", "--keep", "test", "--workers", str(workers)]
    done = subprocess.run(
        [sys.executable, "-m", "mesh.cli", *asked, *more], cwd=ROOT, check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    manifest = json.loads((output / "manifest.json").read_bytes())
    seconds = _seconds(manifest)
    counts = {name: told[name] for name in ("rows", "rows_failed")}
    return {**counts, "seconds": seconds, "rows_per_s": round(told["rows"] / seconds, 1)}


def _seconds(manifest: dict[str, Any]) -> float:
    """From when the batch was begun to when it was whole: what starts before is not counted."""
    began, ended = (datetime.fromisoformat(manifest[name]) for name in ("began", "ended"))
    return round((ended - began).total_seconds(), 1)
