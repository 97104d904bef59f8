"""Measure what the serial and parallel patterns reach: `python scripts/measure_patterns.py [TOPOLOGY...]`.

Asks the topologies themselves, in one process, on rows that no model has learnt from: 5,303 film review sentences, 899
digits, the scanned page of scikit-image. Writes what it finds to topologies/MEASURED.json, from which
scripts/patterns_page.py makes the tables of docs/patterns.md. Needs `make fetch`; takes some five minutes, most of them
MiniLM's. Times are those of the machine at hand, a median each.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mesh.context import Context
from mesh.errors import RequestError
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Array, Tensors
from mesh.topology import compile_file, compile_text
from mesh.transports import InprocTransport, Limits, Transport
from scripts.measure_batch import batch
from scripts.measure_caches import inference_cache, shared_cache, tiered_cache
from scripts.measure_data_caches import input_data_cache, preprocessed_data_cache
from scripts.measure_placed import as_jobs, placed
from scripts.sentences import sentences

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGIES = ROOT / "topologies"
MODELS = ROOT / "models"
MEASURED = TOPOLOGIES / "MEASURED.json"
ROWS_A_CALL = 256
TIMED = 200
"""Sentences that are asked one at a time to see how long each takes."""
PAGES_TIMED = 10
BATCH_S = 600.0
"""The deadline of a batch, on however slow a machine."""
HALVES = ("left", "right", "top", "bottom")
OVER = ((0, 40), (150, 191))
"""From which to which line of pixels the first and the last line of text reach on the page."""


def mesh_of(name: str, placement: str = "fused", transport: Transport | None = None) -> LocalMesh:
    """A topology in this process."""
    return LocalMesh(compile_file(TOPOLOGIES / f"{name}.yaml", LAYERS).plan(placement), transport=transport)


def accuracy(label: Array, truth: Array) -> float:
    """The share of rows that are right, to four digits."""
    return round(float((label == truth).mean()), 4)


def ms(seconds: list[float]) -> float:
    """The median, in milliseconds."""
    return round(float(np.median(seconds)) * 1e3, 2)


def rows_of(context: Context, node: str) -> int:
    """How many rows of a request a node was run on."""
    return sum(timing.rows for timing in context.timings or () if timing.node == node)


# ===== Sentences =====


def batches() -> Iterator[Tensors]:
    """All sentences."""
    text, _ = sentences()
    for start in range(0, len(text), ROWS_A_CALL):
        yield Tensors({"text": text[start : start + ROWS_A_CALL]})


async def serial_cascade() -> dict[str, Any]:
    """How good, and on how many rows the dear model is run."""
    _, truth = sentences()
    labels: list[Array] = []
    went_on = 0
    async with mesh_of("serial_cascade") as mesh:
        for batch in batches():
            context = Context(timings=[]).within(BATCH_S)
            labels.append((await mesh(batch, context))["label"])
            went_on += rows_of(context, "embed")
    share = round(went_on / len(truth), 4)
    return {"rows": len(truth), "accuracy": accuracy(np.concatenate(labels), truth), "went_on": share}


async def parallel_sync() -> dict[str, Any]:
    """How good the mean of both is."""
    _, truth = sentences()
    async with mesh_of("parallel_sync") as mesh:
        labels = [(await mesh(batch, Context().within(BATCH_S)))["label"] for batch in batches()]
    return {"rows": len(truth), "accuracy": accuracy(np.concatenate(labels), truth)}


async def parallel_async() -> dict[str, Any]:
    """How good each event's label is."""
    _, truth = sentences()
    labels: dict[str, list[Array]] = {}
    async with mesh_of("parallel_async") as mesh:
        for batch in batches():
            async for node, found in mesh.root.stream(batch, Context().within(BATCH_S)):
                labels.setdefault(node, []).append(answered(found)["label"])
    return {
        "rows": len(truth),
        "accuracy": {node: accuracy(np.concatenate(said), truth) for node, said in labels.items()},
    }


async def sentiment_ms() -> dict[str, Any]:
    """How long sentences take one at a time, each asked of the three topologies in turn."""
    text, _ = sentences()
    took: dict[str, list[float]] = {}
    async with (
        mesh_of("serial_cascade") as cascade,
        mesh_of("parallel_sync") as whole,
        mesh_of("parallel_async") as events,
    ):
        for row in range(TIMED):
            request = Tensors({"text": text[row : row + 1]})
            context = Context(timings=[])
            started = time.perf_counter()
            await cascade.root(request, context)
            which = "serial_cascade, went on" if rows_of(context, "embed") else "serial_cascade, did not"
            took.setdefault(which, []).append(time.perf_counter() - started)
            started = time.perf_counter()
            await whole.root(request, Context())
            took.setdefault("parallel_sync", []).append(time.perf_counter() - started)
            started = time.perf_counter()
            async for node, _ in events.root.stream(request, Context()):
                took.setdefault(f"parallel_async, {node}", []).append(time.perf_counter() - started)
    return {which: ms(seconds) for which, seconds in took.items()}


def answered(found: Tensors | RequestError) -> Tensors:
    """What an event gives. Raises what it tells of."""
    if isinstance(found, RequestError):
        raise found
    return found


# ===== Digits =====


@cache
def digits() -> tuple[Array, Array]:
    """FP32[899, 64] and what each is."""
    sample = np.load(MODELS / "digits_sample.npz")
    return sample["image"], sample["label"]


class Without(InprocTransport):
    """One worker cannot be reached, as if it had been killed."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._prefix = f"inproc://{worker}-"

    async def dial(self, address: str, limits: Limits):
        """Dial, but where that worker listens."""
        return await super().dial("inproc://nobody" if address.startswith(self._prefix) else address, limits)


async def parallel_quorum() -> dict[str, Any]:
    """How good all four are together, and any three when the fourth is down."""
    image, truth = digits()
    request = Tensors({"image": image})
    async with mesh_of("parallel_quorum") as mesh:
        found: dict[str, float] = {"all four": accuracy((await mesh(request))["label"], truth)}
        alone: dict[str, float] = {}
        async for node, said in mesh.root.stream(request, Context()):
            if node in HALVES:
                alone[node] = accuracy(answered(said)["label"], truth)
    for half in HALVES:
        async with mesh_of("parallel_quorum", "apart", Without(half)) as mesh:
            found[f"without {half}"] = accuracy((await mesh(request))["label"], truth)
    return {"rows": len(truth), "accuracy": found, "alone": {half: alone[half] for half in HALVES}}


async def canary() -> dict[str, Any]:
    """Into which arm each row falls, asked alone, and how many rows when all are asked together."""
    image, truth = digits()
    arms: dict[str, list[bool]] = {"proven": [], "candidate": []}
    async with mesh_of("canary") as mesh:
        together = Context(timings=[])
        whole = await mesh(Tensors({"image": image}), together)
        for row in range(len(image)):
            context = Context(timings=[])
            answer = await mesh(Tensors({"image": image[row : row + 1]}), context)
            (arm,) = [arm for arm in arms if rows_of(context, arm)]
            arms[arm].append(bool(answer["label"][0] == truth[row]))
    if any(len(right) != rows_of(together, arm) for arm, right in arms.items()):
        raise AssertionError("a row fell into another arm alone than with others")
    return {
        "rows": len(truth),
        "accuracy": accuracy(whole["label"], truth),
        "arms": {
            arm: {"rows": len(right), "right": sum(right), "accuracy": round(float(np.mean(right)), 4)}
            for arm, right in arms.items()
        },
    }


async def shadow() -> dict[str, Any]:
    """How often the shadow says the same."""
    image, truth = digits()
    async with mesh_of("shadow") as mesh:
        label = (await mesh(Tensors({"image": image})))["label"]
        (mirrored,) = mesh.root.shadows
        await mirrored.settled()
        seen = mirrored.comparison
    return {
        "rows": len(truth),
        "accuracy": accuracy(label, truth),
        "alike": seen.rows_alike,
        "unlike": seen.rows_unlike,
        "failed": seen.failed,
        "dropped": seen.dropped,
    }


STRONG = ("logreg", "mlp", "svc")
"""Models of whole pictures."""
TOGETHER = """
mesh: v1
name: together
models: models
inputs: {{image: {{datatype: FP32, shape: [-1, 64]}}}}
nodes:
  scale: {{uses: "nodes.tabular:Scale", with: {{divide_by: 16}}, inputs: {{x: image}}}}
{models}
  answer: {{uses: "nodes.aggregate:SoftVote", inputs: [{names}]}}
outputs: {{label: answer.label}}
"""
MODEL = '  {0}: {{uses: "nodes.onnx:OnnxPredict", with: {{model: digits_{0}.onnx}}, inputs: {{X: scale.x}}}}'


async def no_gain() -> dict[str, Any]:
    """Good digit models alone, and the mean of several: what an ensemble does not do."""
    image, truth = digits()
    found: dict[str, float] = {}
    for count in range(1, len(STRONG) + 1):
        for names in combinations(STRONG, count):
            text = TOGETHER.format(models="\n".join(map(MODEL.format, names)), names=", ".join(names))
            async with LocalMesh(compile_text(text, LAYERS, folder=ROOT).plan("fused")) as mesh:
                found["+".join(names)] = accuracy((await mesh(Tensors({"image": image})))["label"], truth)
    return {"rows": len(truth), "accuracy": found}


# ===== Pages =====


@cache
def page() -> Image.Image:
    """The scanned page of scikit-image."""
    with Image.open(MODELS / "fetched" / "page.png") as opened:
        return opened.copy()


def file_of(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def turned(quarters: int) -> bytes:
    """The page turned clockwise by so many quarters."""
    return file_of(page().rotate(-90 * quarters, expand=True))


def two_lines_over() -> bytes:
    """The page with its first and its last line upside down."""
    made = page().copy()
    for top, bottom in OVER:
        made.paste(made.crop((0, top, made.width, bottom)).rotate(180), (0, top))
    return file_of(made)


async def serial_ocr() -> dict[str, Any]:
    """Which lines are read exactly, which are read twice, and where the time goes."""
    truth = (MODELS / "page.txt").read_text().splitlines()
    pages = {f"turned by {90 * quarters}": turned(quarters) for quarters in range(4)}
    pages["two lines upside down"] = two_lines_over()
    found: dict[str, Any] = {}
    took: list[float] = []
    spent: dict[str, list[float]] = {}
    async with mesh_of("serial_ocr") as mesh:
        for name, data in pages.items():
            context = Context(timings=[])
            answer = await mesh(Tensors({"page": [data]}), context)
            said = answer["text"][0].decode().split("\n")
            found[name] = {
                "exact": sum(one == other for one, other in zip(said, truth, strict=False)),
                "lines": int(answer["lines"][0]),
                "lowest_score": round(float(answer["score"][0]), 3),
                "turned_back": rows_of(context, "turn"),
                "read_again": rows_of(context, "read-again"),
            }
        for _ in range(PAGES_TIMED):
            context = Context(timings=[])
            started = time.perf_counter()
            await mesh(Tensors({"page": [pages["turned by 180"]]}), context)
            took.append(time.perf_counter() - started)
            for timing in context.timings or ():
                spent.setdefault(timing.node, []).append(timing.compute_s)
    return {"lines": len(truth), "pages": found, "ms": {"a page": ms(took), **{one: ms(spent[one]) for one in spent}}}


MEASURES: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "serial_ocr": serial_ocr,
    "serial_cascade": serial_cascade,
    "parallel_sync": parallel_sync,
    "parallel_quorum": parallel_quorum,
    "parallel_async": parallel_async,
    "sentiment_ms": sentiment_ms,
    "canary": canary,
    "shadow": shadow,
    "no_gain": no_gain,
    "inference_cache": inference_cache,
    "shared_cache": shared_cache,
    "tiered_cache": tiered_cache,
    "input_data_cache": input_data_cache,
    "preprocessed_data_cache": preprocessed_data_cache,
    "batch": batch,
    "placed": placed,
    "as_jobs": as_jobs,
}


async def measure(names: list[str]) -> None:
    """Measure some of them; what is known of the others stays."""
    known: dict[str, Any] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for name in names:
        found = await MEASURES[name]()
        print(name, json.dumps(found, indent=2))
        known[name] = found
        MEASURED.write_text(json.dumps({one: known[one] for one in MEASURES if one in known}, indent=2) + "\n")


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(MEASURES)
    if unknown := [name for name in wanted if name not in MEASURES]:
        sys.exit(f"no measure of {', '.join(unknown)}; there is {', '.join(MEASURES)}")
    asyncio.run(measure(wanted))
