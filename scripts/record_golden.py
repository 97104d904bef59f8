"""Record what the topologies answer, for the tests to hold every placement against.

    record_golden.py                                                  ask every recorded request again
    record_golden.py topologies/x.yaml --case NAME --input n=@file    record one more request

A recorded request keeps its bytes: files that it was made from may change. Look at the difference before committing it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mesh.cli.inputs import INPUT_HELP, read_inputs
from mesh.cli.jsonable import array_of_json, json_of_tensors
from mesh.context import Context
from mesh.errors import REQUEST_ERRORS, RequestError
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_file
from scripts.page_server import PORT, serving, turned_pages

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
TOLERANCE = 1e-5
"""Of numbers that should be equal, where rows met in other batches or another processor added them up."""
REQUEST_ID = "golden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, and what it is answered with."""

    name: str
    request: Tensors
    result: Tensors | RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The recorded cases of one topology; the first is its plain use."""

    tolerance: float
    cases: tuple[Case, ...]

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Read a file that `write` wrote."""
        found = json.loads(path.read_text())
        return cls(tolerance=found["tolerance"], cases=tuple(_case(case) for case in found["cases"]))

    def write(self, path: Path) -> None:
        """Save as JSON, one row of a tensor a line."""
        cases = [
            {
                "name": case.name,
                "request": json_of_tensors(case.request),
                **(
                    {"error": _json_of_error(case.result)}
                    if isinstance(case.result, RequestError)
                    else {"answer": json_of_tensors(case.result)}
                ),
            }
            for case in self.cases
        ]
        path.write_text(_pretty({"tolerance": self.tolerance, "cases": cases}, "") + "\n")


def _case(found: Any) -> Case:
    error = found.get("error")
    return Case(
        name=found["name"],
        request=_tensors(found["request"]),
        result=_error(error) if error else _tensors(found["answer"]),
    )


def _tensors(found: Mapping[str, Any]) -> Tensors:
    return Tensors(
        {name: array_of_json(one["data"], one["datatype"]).reshape(one["shape"]) for name, one in found.items()}
    )


def _json_of_error(error: RequestError) -> dict[str, Any]:
    return {"code": error.code, "text": error.text, "node": error.node, "tensor": error.tensor, "row": error.row}


def _error(found: Mapping[str, Any]) -> RequestError:
    return REQUEST_ERRORS[found["code"]](
        found["text"], node=found["node"], tensor=found["tensor"], row=found["row"], request_id=REQUEST_ID
    )


def _pretty(value: Any, indent: str) -> str:
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(isinstance(item, dict | list) for item in inside):
        return json.dumps(value, ensure_ascii=False)
    deeper = f"{indent} "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(key)}: {_pretty(item, deeper)}" for key, item in value.items()]
    else:
        lines = [f"{deeper}{_pretty(item, deeper)}" for item in inside]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return "\n".join((opening, ",\n".join(lines), indent + closing))


async def ask(topology: Path, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
    """What a topology answers in one process."""
    results: list[Tensors | RequestError] = []
    compiled = compile_file(topology, LAYERS)
    # What a topology fetches has to be there; what it keeps elsewhere does not.
    fetches = any(node.uses == "nodes.fetch:Fetch" for node in compiled.graph.nodes)
    with serving(turned_pages(), PORT) if fetches else nullcontext():
        async with LocalMesh(compiled.plan("fused")) as mesh:
            for request in requests:
                try:
                    results.append(await mesh(request, Context(request_id=REQUEST_ID)))
                except RequestError as error:
                    results.append(error)
    return results


def record_again(path: Path) -> None:
    """Ask every case of one file again."""
    golden = Golden.read(path)
    results = asyncio.run(ask(ROOT / "topologies" / f"{path.stem}.yaml", [case.request for case in golden.cases]))
    changed = [case.name for case, result in zip(golden.cases, results, strict=True) if case.result != result]
    cases = tuple(replace(case, result=result) for case, result in zip(golden.cases, results, strict=True))
    replace(golden, cases=cases).write(path)
    print(f"{path.relative_to(ROOT)}: {len(cases)} cases, changed: {', '.join(changed) or 'none'}")


def record_case(topology: Path, name: str, given: Sequence[str], rows: int | None, tolerance: float | None) -> None:
    """Record one case, in place of that of the same name."""
    request = read_inputs(given, compile_file(topology, LAYERS).graph.inputs)
    request = request if rows is None else request.take(0, rows)
    (result,) = asyncio.run(ask(topology, [request]))
    path = GOLDEN / f"{topology.stem}.json"
    golden = Golden.read(path) if path.exists() else Golden(tolerance=TOLERANCE, cases=())
    others = [case for case in golden.cases if case.name != name]
    cases = (*others, Case(name=name, request=request, result=result))
    Golden(tolerance=golden.tolerance if tolerance is None else tolerance, cases=cases).write(path)
    print(f"{path.relative_to(ROOT)}: {name}: {result!r}")


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topology", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("--case", default="plain", help="what the request is an example of (default: plain)")
    parser.add_argument("-i", "--input", action="append", default=[], metavar="NAME=VALUE", help=INPUT_HELP)
    parser.add_argument("--rows", type=int, help="only the first rows of the inputs")
    parser.add_argument("--tolerance", type=float, help=f"of all numbers in the file (default: {TOLERANCE})")
    arguments = parser.parse_args()
    if arguments.topology is None:
        for path in sorted(GOLDEN.glob("*.json")):
            record_again(path)
    elif not arguments.input:
        sys.exit(f"say with --input what to ask {arguments.topology.name}")
    else:
        record_case(arguments.topology, arguments.case, arguments.input, arguments.rows, arguments.tolerance)


if __name__ == "__main__":
    main()
