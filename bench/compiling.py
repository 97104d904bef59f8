"""(d) What `mesh check` costs: files compiled, right ones and wrong ones, against the parsing of their YAML alone."""

from __future__ import annotations

import contextlib
from typing import Any

import yaml

from bench.measure import paired
from mesh.errors import TopologyError
from mesh.layers import LAYERS
from mesh.topology import compile_text

__all__ = ["conditional", "run", "topology"]

SIZES = (10, 100, 1000)
WIDTH = 10
"""Chains side by side, each in a worker of its own."""
ROUNDS = 9


def topology(nodes: int, divide_by: str = "16") -> str:
    """A file of so many nodes with layers, and a placement that names each of them."""
    head = "mesh: v1\nname: big\ninputs:\n  image: {datatype: FP32, shape: [-1, 64]}\nnodes:\n"
    parts = "".join(
        f"  n{index}:\n"
        f"    uses: nodes.tabular:Scale\n"
        f"    with: {{divide_by: {divide_by}}}\n"
        f"    inputs: {{x: {'image' if index < WIDTH else f'n{index - WIDTH}.x'}}}\n"
        f"    layers: [{{queue: {{max_rows: 64}}}}, {{batch: {{max_rows: 8, max_delay: 1ms}}}}]\n"
        for index in range(nodes)
    )
    outputs = "".join(f"  o{chain}: n{nodes - WIDTH + chain}.x\n" for chain in range(WIDTH))
    workers = "".join(
        f"    w{chain}: {{nodes: [{', '.join(f'n{index}' for index in range(chain, nodes, WIDTH))}]}}\n"
        for chain in range(WIDTH)
    )
    return f"{head}{parts}outputs:\n{outputs}placements:\n  chains:\n{workers}"


def conditional(nodes: int) -> str:
    """A file of so many nodes, each with a condition on the first, joined by an aggregate."""
    head = "mesh: v1\nname: conditions\ninputs:\n  image: {datatype: FP32, shape: [-1, 64]}\nnodes:\n"
    first = "  first:\n    uses: nodes.tabular:Scale\n    with: {divide_by: 16}\n    inputs: {x: image}\n"
    parts = "".join(
        f"  n{index}:\n"
        f"    uses: nodes.tabular:Scale\n"
        f"    with: {{divide_by: 16}}\n"
        f"    inputs: {{x: first.x}}\n"
        f"    when: max(first.x) > 0.{index:04d} and mean(first.x) < 0.5\n"
        for index in range(nodes - 2)
    )
    names = ", ".join([*(f"n{index}" for index in range(nodes - 2)), "first"])
    answer = f"  answer:\n    uses: nodes.aggregate:FirstOf\n    inputs: [{names}]\n"
    placements = f"placements:\n  chains:\n    w: {{nodes: [{names}, answer]}}\n"
    return f"{head}{first}{parts}{answer}outputs: {{x: answer.x}}\n{placements}"


async def run() -> dict[str, Any]:
    """Time for a file, from its text to a graph and the plan of its placement, or to all of its mistakes."""
    cases = {f"{count:,} nodes": (topology(count), 0) for count in SIZES}
    cases[f"{SIZES[-1]:,} nodes, a condition on each"] = (conditional(SIZES[-1]), 0)
    cases[f"{SIZES[-1]:,} nodes, a mistake in each"] = (topology(SIZES[-1], divide_by="x"), SIZES[-1])
    found: dict[str, Any] = {"target_s_for_1000_nodes": 1.0, "cases": {}}
    for name, (text, mistakes) in cases.items():

        def ours(text: str = text) -> None:
            with contextlib.suppress(TopologyError):
                compile_text(text, LAYERS).plan("chains")

        def yaml_alone(text: str = text) -> None:
            yaml.load(text, yaml.CSafeLoader)

        check(text, mistakes)
        measured = paired(ours, yaml_alone, calls=1, rounds=ROUNDS)
        found["cases"][name] = {"bytes": len(text), "mistakes": mistakes, **measured.to_json()}
    return found


def check(text: str, mistakes: int) -> None:
    """What is timed is what it is said to be."""
    told = 0
    try:
        compile_text(text, LAYERS)
    except TopologyError as error:
        told = len(error.problems)
    if told != mistakes:
        raise RuntimeError(f"{told} mistakes where {mistakes} are meant")
