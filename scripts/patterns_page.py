"""Write docs/patterns.md's excerpts and tables, and its pictures, from the topologies and from what was measured.

python scripts/patterns_page.py            write them
python scripts/patterns_page.py --check    fail where they say something else

The text between the marks is made here; everything around it is written by hand. What was measured is in
topologies/MEASURED.json, by scripts/measure_patterns.py.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.topology.render import svg

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGIES = ROOT / "topologies"
PAGE = ROOT / "docs" / "patterns.md"
IMAGES = ROOT / "docs" / "images"
MEASURED = TOPOLOGIES / "MEASURED.json"

PICTURES: Mapping[str, str] = {
    "web_single": "fused",
    "synchronous": "apart",
    "prep_pred_simple": "simple",
    "prep_pred_microservice": "microservice",
    "serial_ocr": "fused",
    "serial_cascade": "fused",
    "parallel_sync": "fused",
    "parallel_quorum": "fused",
    "canary": "fused",
    "shadow": "fused",
    "inference_cache": "fused",
    "shared_cache": "shared",
    "tiered_cache": "tiered",
    "input_data_cache": "intake",
    "preprocessed_data_cache": "prepared",
    "asynchronous": "reading-apart",
    "asynchronous_parallel": "dear-apart",
    "batch": "dear-apart",
    "batch_nightly": "fused",
}
"""Topology -> the placement that is drawn. parallel_async is drawn as parallel_sync is."""
_PART = re.compile(r"(<!-- (file|measured): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


# ===== Excerpts =====


def excerpt(told: str) -> str:
    """Some parts of a topology file, as `serial_ocr: turn, find` or, of another section, `canary: placements`."""
    name, _, parts = told.partition(": ")
    text = (TOPOLOGIES / f"{name}.yaml").read_text()
    return "\n".join(["```yaml", *(_part(text, part.strip()) for part in parts.split(",")), "```"])


def _part(text: str, name: str) -> str:
    """A node, or else a whole section of the file."""
    nodes = _block(text, "nodes", 0)
    return _block(nodes, name, 2) or _block(text, name, 0)


def _block(text: str, key: str, indent: int) -> str:
    margin = " " * indent
    found = re.search(rf"^{margin}{re.escape(key)}:.*\n(?:{margin} .*\n|\n(?={margin} ))*", f"{text}\n", re.MULTILINE)
    return found[0].rstrip("\n") if found else ""


# ===== Tables =====


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join([_row(*head), _row("---", *["---:"] * (len(head) - 1)), *(_row(*row) for row in rows)])


def _part_of_one(value: float) -> str:
    return f"{value:.4f}".lstrip("0")


def _serial_ocr(found: Any) -> str:
    rows = [
        (name, f"{one['exact']} of {found['lines']}", one["lowest_score"], one["turned_back"], one["read_again"])
        for name, one in found["pages"].items()
    ]
    return _table(["the page", "lines exact", "lowest score", "pages turned back", "lines read again"], rows)


def _serial_ocr_ms(found: Any) -> str:
    shown = [node for node in found["ms"] if found["ms"][node] >= 1]
    return _table(
        ["", *(node if node == "a page" else f"`{node}`" for node in shown)],
        [("ms", *(found["ms"][node] for node in shown))],
    )


def _sentiment(every: Any) -> str:
    cascade, alone, took = every["serial_cascade"], every["parallel_async"]["accuracy"], every["sentiment_ms"]
    short, long = took["serial_cascade, did not"], took["serial_cascade, went on"]
    rows = [
        ("the words alone", _part_of_one(alone["words"]), "none", took["parallel_async, words"]),
        ("MiniLM alone", _part_of_one(alone["meaning"]), "all", took["parallel_async, meaning"]),
        (
            "`serial_cascade`: words; where they are unsure, the mean of both",
            f"**{_part_of_one(cascade['accuracy'])}**",
            f"{cascade['went_on']:.0%}",
            f"{short} or {long}",
        ),
        (
            "`parallel_sync`: the mean of both",
            f"**{_part_of_one(every['parallel_sync']['accuracy'])}**",
            "all",
            took["parallel_sync"],
        ),
    ]
    return _table(["", "accuracy", "rows that MiniLM is asked about", "ms a row"], rows)


def _parallel_quorum(found: Any) -> str:
    alone = [(f"{half} alone", _part_of_one(value)) for half, value in found["alone"].items()]
    together = [(f"**{name}**", f"**{_part_of_one(value)}**") for name, value in found["accuracy"].items()]
    return _table(["who answers", "accuracy"], [*alone, *together])


def _parallel_async(every: Any) -> str:
    right, took = every["parallel_async"]["accuracy"], every["sentiment_ms"]
    rows = [(f"`{node}`", took[f"parallel_async, {node}"], _part_of_one(value)) for node, value in right.items()]
    return _table(["event", "there after, ms", "accuracy of its label"], rows)


def _canary(found: Any) -> str:
    rows = [
        (f"`{arm}`", one["rows"], f"{one['rows'] / found['rows']:.1%}", one["right"], _part_of_one(one["accuracy"]))
        for arm, one in found["arms"].items()
    ]
    return _table(["arm", "rows", "share", "right", "accuracy"], rows)


def _shadow(found: Any) -> str:
    row = (found["rows"], found["alike"], found["unlike"], found["failed"], found["dropped"])
    return _table(["rows", "alike", "unlike", "requests failed", "requests not mirrored"], [row])


def _no_gain(found: Any) -> str:
    rows = [(f"`{names}`", _part_of_one(value)) for names, value in found["accuracy"].items()]
    return _table(["digit models", "accuracy"], rows)


def _inference_cache(found: Any) -> str:
    names = {"without": "`cache: skip`", "cold": "the cache empty", "warm": "the cache full"}
    rows = [
        (names[name], one["files"], one["computed"], f"{one['spared']:.1%}", one["mean_ms"], one["median_ms"])
        for name, one in found.items()
    ]
    return _table(["", "files", "asked of Magika", "spared", "ms a file, mean", "median"], rows)


def _shared_cache(found: Any) -> str:
    rows = [
        (f"two replicas, {name}", found["rows"], found["different"], found[name]["computed"], spared)
        for name in ("each its own", "one for both")
        for spared in [f"{found[name]['spared']:.1%}"]
    ]
    return _table(["cache", "rows", "different ones", "computed", "spared"], rows)


def _tiered_cache(found: Any) -> str:
    return _passes({name: one for name, one in found.items() if name != "different"}, "asked of MiniLM", "MiniLM")


def _input_data_cache(found: Any) -> str:
    rows = [
        (
            name,
            one["requests"],
            one["fetched"],
            one["megabytes"],
            f"{1 - one['fetched'] / (2 * one['requests']):.1%}",
            one["mean_ms"],
        )
        for name, one in found.items()
    ]
    return _table(
        ["", "pages asked about", "fetched", "MB fetched", "of two fetches a page spared", "ms a page, mean"], rows
    )


def _preprocessed_data_cache(found: Any) -> str:
    return _passes(found, "decoded", "`prepare`")


def _passes(found: Any, asked: str, node: str) -> str:
    """What `scripts/cache_passes.py` counts."""
    rows = [
        (
            name,
            one["requests"],
            one["computed"],
            f"{one['spared']:.1%}",
            one["busy_s"],
            one["mean_ms"],
            one["median_ms"],
        )
        for name, one in found.items()
    ]
    return _table(["", "rows", asked, "spared", f"{node} busy, s", "ms a row, mean", "median"], rows)


def _batch(found: Any) -> str:
    rows = [
        (
            f"{count} worker{'s' * (count != '1')}",
            *(one[name] for name in ("rows", "rows_failed", "seconds", "rows_per_s")),
            _part_of_one(one["accuracy"]),
        )
        for count, one in found["workers"].items()
    ]
    judged = next(iter(found["workers"].values()))["judged"]
    return _table(["", "rows", "failed", "s", "rows a second", f"accuracy, of {judged:,} that are new to it"], rows)


def _placed(found: Any) -> str:
    rows = [
        (
            f"`{name}`",
            f"`{one['placement']}`",
            *(cell for way in ("in this process", "mesh up") for cell in _asked(one[way])),
        )
        for name, one in found.items()
    ]
    return _table(
        ["", "placement", "one process: ms, median (p99)", "a second", "`mesh up`: ms, median (p99)", "a second"], rows
    )


def _asked(one: Any) -> tuple[str, str]:
    return f"{one['p50_ms']} ({one['p99_ms']})", f"{one['per_s']:,.0f}"


def _as_job(found: Any) -> str:
    names = {"call": "as a call: the answer", "submitted": "as a job: its id", "over": "its end"}
    return _table(["", *(names.get(event, f"`{event}`") for event in found["ms"])], [("ms", *found["ms"].values())])


TABLES: Mapping[str, Callable[[Any], str]] = {
    "serial_ocr": lambda every: _serial_ocr(every["serial_ocr"]),
    "serial_ocr, time": lambda every: _serial_ocr_ms(every["serial_ocr"]),
    "sentiment": _sentiment,
    "parallel_quorum": lambda every: _parallel_quorum(every["parallel_quorum"]),
    "parallel_async": _parallel_async,
    "canary": lambda every: _canary(every["canary"]),
    "shadow": lambda every: _shadow(every["shadow"]),
    "no_gain": lambda every: _no_gain(every["no_gain"]),
    "inference_cache": lambda every: _inference_cache(every["inference_cache"]),
    "shared_cache": lambda every: _shared_cache(every["shared_cache"]),
    "tiered_cache": lambda every: _tiered_cache(every["tiered_cache"]),
    "input_data_cache": lambda every: _input_data_cache(every["input_data_cache"]),
    "preprocessed_data_cache": lambda every: _preprocessed_data_cache(every["preprocessed_data_cache"]),
    "batch": lambda every: _batch(every["batch"]),
    "placed": lambda every: _placed(every["placed"]),
    "asynchronous": lambda every: _as_job(every["as_jobs"]["asynchronous"]),
    "asynchronous_parallel": lambda every: _as_job(every["as_jobs"]["asynchronous_parallel"]),
}


# ===== The page and its pictures =====


def written(page: str) -> str:
    """The page with its excerpts and tables as they are now."""
    measured = json.loads(MEASURED.read_text())

    def part(found: re.Match[str]) -> str:
        made = excerpt(found[3]) if found[2] == "file" else TABLES[found[3]](measured)
        return f"{found[1]}{made}\n{found[4]}"

    return _PART.sub(part, page)


def picture(name: str) -> str:
    """A topology, as `mesh graph --format svg` draws it."""
    drawn = svg(compile_file(TOPOLOGIES / f"{name}.yaml", LAYERS).plan(PICTURES[name]))
    return drawn if drawn.endswith("\n") else f"{drawn}\n"


def everything() -> dict[Path, str]:
    """Every file that is made here, as it should be."""
    pictures = {IMAGES / f"{name}.svg": picture(name) for name in PICTURES}
    return {PAGE: written(PAGE.read_text()), **pictures}


def main() -> None:
    """Write, or look whether it is written."""
    made = everything()
    if "--check" not in sys.argv[1:]:
        for path, text in made.items():
            path.write_text(text)
    elif stale := [path for path, text in made.items() if not path.exists() or path.read_text() != text]:
        told = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"not what the topologies say: {told}; run python scripts/patterns_page.py")


if __name__ == "__main__":
    main()
