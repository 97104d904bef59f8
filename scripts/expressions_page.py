"""Write the tables of docs/expressions.md from the language's own: its functions, operators, limits and mistakes.

python scripts/expressions_page.py            write them
python scripts/expressions_page.py --check    fail where the page says something else
"""

from __future__ import annotations

import re
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mesh.signature import Signature
from mesh.tensors import Tensors
from mesh.topology.expressions import Condition, ExpressionError, parse, typed
from mesh.topology.expressions.table import FUNCTIONS, OPERATORS
from mesh.topology.expressions.words import MAX_BYTES, MAX_DEPTH, MAX_LITERALS

_MEASURED = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)
PAGE = Path(__file__).resolve().parent.parent / "docs" / "expressions.md"
_PART = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

EDGES = Signature.parse(
    "image: FP32[rows, 64], text: BYTES[rows, 1], small.probabilities: FP32[rows, 10], small.label: INT64[rows],"
    "words.label: BYTES[rows] ->"
).inputs
"""The edges of the page's examples."""
OPERANDS = Signature.parse(
    "x: FP32[rows], y: FP32[rows], label: BYTES[rows], sure: BOOL[rows],"
    "columns: FP32[rows, 8], grid: FP32[rows, 4, 8] ->"
).inputs
"""What stands for x and the others in the table of operators."""
MISTAKES = (
    "max(small.probabilites) < 0.9",
    "small.probabilities < 0.9",
    'small.label == "7"',
    "small.probabilities[10] > 0.5",
    "max(image) ** 2 > 1",
    "small.label in [7, 0.5]",
)


MEASURED = (
    "max(small.probabilities) < 0.9",
    'words.label in ["cat", "dog"]',
    'words.label == "cat"',
    'parameters.tier == "gold"',
    "0.4 < max(small.probabilities) <= 0.9",
    "small.probabilities[0] - small.probabilities[1] < 0.1",
    'argmax(small.probabilities) in [3, 5, 8] and parameters.tier != "gold"',
    "mean(image) > 0.5",
    "any(abs(image - mean(image)) > 0.4)",
)
ROWS = 64


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def functions() -> str:
    """The functions, in their order."""
    kinds = {"number": "numbers", "BOOL": "BOOL", "text": "BYTES"}
    rows = [
        _row(
            f"`{one.name}`", ", ".join(kinds[kind] for kind in one.takes), one.does, one.gives_told, f"`{one.example}`"
        )
        for one in FUNCTIONS.values()
    ]
    return "\n".join([_row("function", "of", "gives", "as", "example"), _row(*["---"] * 5), *rows])


def operators() -> str:
    """What stands between values, what binds tightest first."""
    rows = [_row(f"`{one.written}`", one.takes, one.does, one.gives) for one in OPERATORS]
    return "\n".join([_row("written", "takes", "gives", "as"), _row(*["---"] * 4), *rows])


def limits() -> str:
    """Every bound."""
    return "\n".join(
        [
            _row("bound", "most"),
            _row("---", "---"),
            _row("length of an expression", f"{MAX_BYTES} bytes of UTF-8"),
            _row("nesting", f"{MAX_DEPTH} levels"),
            _row("numbers, texts and truths", str(MAX_LITERALS)),
            _row("a number", "64 bits"),
        ]
    )


def mistakes() -> str:
    """What is said of some expressions that are wrong."""
    told: list[str] = []
    for text in MISTAKES:
        try:
            typed(parse(text), EDGES)
        except ExpressionError as error:
            told.append(str(error))
        else:
            raise AssertionError(f"{text} is no mistake")
    return "\n".join(["```text", "\n\n".join(told), "```"])


TABLES: dict[str, Callable[[], str]] = {
    "functions": functions,
    "operators": operators,
    "limits": limits,
    "mistakes": mistakes,
}


def written(page: str) -> str:
    """The page with its tables as the code has them now."""
    return _PART.sub(lambda part: f"{part[1]}{TABLES[part[2]]()}\n{part[3]}", page)


def measured() -> str:
    """Microseconds that expressions take for a batch: the least of some rounds."""
    random = np.random.default_rng(0)
    tensors = Tensors(
        {
            "image": random.random((ROWS, 64), np.float32),
            "small.probabilities": random.random((ROWS, 10), np.float32),
            "words.label": np.array([b"cat", b"dog", b"bird", b"fish"] * (ROWS // 4), object),
        }
    )
    rows: list[str] = []
    for text in MEASURED:
        condition = typed(parse(text), EDGES)

        def ask(condition: Condition = condition) -> None:
            condition(tensors, {"tier": "gold"}, ROWS)

        seconds = min(timeit.repeat(ask, number=5000, repeat=10)) / 5000
        rows.append(_row(f"`{text}`", f"{seconds * 1e6:.1f}"))
    return "\n".join([_row("expression", "µs"), _row("---", "---:"), *rows])


def main() -> None:
    """Write the page, or look whether it is written."""
    page = PAGE.read_text()
    if "--measure" in sys.argv[1:]:
        page = _MEASURED.sub(lambda part: f"{part[1]}{measured()}\n{part[2]}", page)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written(page))
    elif written(page) != page:
        sys.exit("docs/expressions.md is not what the code says: run python scripts/expressions_page.py")


if __name__ == "__main__":
    main()
