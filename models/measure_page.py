"""How well the page is read, and what each step costs: `python models/measure_page.py`.

The scanned page of scikit-image, turned any of four ways, through the very nodes that the topology is made of. Writes
what it finds to MEASURED.json under `page`. Times are of one page on one thread, median of ten. Needs `make fetch`;
takes half a minute.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

import numpy as np
from fetch import FETCHED
from manifest import FOLDER, record
from PIL import Image

from mesh import Array, Branches, Context, Tensors
from nodes.ocr_lines import FindLines, ReadLines
from nodes.ocr_page import Orientation, Turn, TurnLine
from nodes.onnx import OnnxPredict
from nodes.surest import Surest

CONTEXT = Context()
TIMES = 10
SURE = 0.9
TRUTH = (FOLDER / "page.txt").read_text().splitlines()


def turned(quarters: int) -> bytes:
    """The page turned clockwise by so many quarters, as a file."""
    out = io.BytesIO()
    with Image.open(FETCHED / "page.png") as page:
        page.rotate(-90 * quarters, expand=True).save(out, "PNG")
    return out.getvalue()


@dataclass
class Page:
    """The nodes, loaded, and how long each was at work."""

    orientation: Orientation
    which: OnnxPredict
    turn: Turn
    find: FindLines
    read: ReadLines
    turn_line: TurnLine
    took: dict[str, list[float]] = field(default_factory=dict)

    async def timed(self, step: str, work: Awaitable[Tensors]) -> Tensors:
        """Await it, and note how long it took."""
        started = time.perf_counter()
        found = await work
        self.took.setdefault(step, []).append(time.perf_counter() - started)
        return found

    async def lines(self, page: bytes) -> Tensors:
        """The lines on one page."""
        return await self.timed("find", self.find.predict(Tensors({"image": np.array([page], object)}), CONTEXT))

    async def text(self, lines: Array) -> Tensors:
        """What lines say, and how sure that is."""
        return await self.timed("read", self.read.predict(Tensors({"line": lines}), CONTEXT))

    async def whole(self, page: bytes) -> tuple[int, list[str], Array]:
        """How the page was turned, its text and how sure that is."""
        given = Tensors({"image": np.array([page], object)})
        x = await self.timed("prepare", self.orientation.preprocess(given, CONTEXT))
        scores = (await self.timed("which way up", self.which.predict(x, CONTEXT)))["fetch_name_0"]
        upright = await self.timed("turn", self.turn.preprocess(Tensors({**given, "scores": scores}), CONTEXT))
        said = await self.text((await self.lines(upright["image"][0]))["line"])
        return int(scores.argmax()), texts(said), said["score"]

    async def second_look(self, page: bytes) -> tuple[int, list[str]]:
        """How many lines were read badly and again, turned; and the text of each that is surer."""
        lines = (await self.lines(page))["line"]
        first = await self.text(lines)
        again = np.flatnonzero(first["score"] < SURE)
        if not len(again):
            return 0, texts(first)
        other = await self.turn_line.preprocess(Tensors({"line": lines[again]}), CONTEXT)
        second = Tensors(await self.text(other["line"]), sources=again)
        return len(again), texts(await Surest().aggregate(Branches({"first": first, "second": second}), CONTEXT))


def texts(answer: Tensors) -> list[str]:
    return [text.decode() for text in answer["text"]]


async def measure() -> dict[str, object]:
    async with (
        Orientation() as orientation,
        OnnxPredict(model=FETCHED / "orientation.onnx") as which,
        Turn() as turn,
        FindLines(model=FETCHED / "ocr_lines.onnx") as find,
        ReadLines(model=FETCHED / "ocr_text.onnx") as read,
        TurnLine() as turn_line,
    ):
        page = Page(orientation, which, turn, find, read, turn_line)
        turns = {str(90 * quarters): await page.whole(turned(quarters)) for quarters in range(4)}
        upright, upside_down = [await page.second_look(turned(quarters)) for quarters in (0, 2)]
        lines = await page.lines(turned(0))
        page.took.clear()
        for _ in range(TIMES):
            await page.whole(turned(2))
    return {
        "lines": len(TRUTH),
        "turned": {
            degrees: {
                "said": 90 * quarters,
                "lines_exact": sum(map(str.__eq__, said, TRUTH)),
                "lowest_score": round(float(scores.min()), 3),
            }
            for degrees, (quarters, said, scores) in turns.items()
        },
        "second_look": {
            "upright": {"lines_again": upright[0], "lines_exact": sum(map(str.__eq__, upright[1], TRUTH))},
            # Upside down, the last line is found first.
            "upside_down": {
                "lines_again": upside_down[0],
                "lines_exact": sum(map(str.__eq__, upside_down[1][::-1], TRUTH)),
            },
        },
        "ms": {step: round(float(np.median(took)) * 1e3, 1) for step, took in page.took.items()},
        "bytes_on_edges": {
            "page": len(turned(0)),
            "lines": sum(map(len, lines["line"])),
            "boxes": lines["box"].nbytes,
        },
    }


if __name__ == "__main__":
    record("page", asyncio.run(measure()))
