"""The guide to aggregates names each of them, with each of its options and what it needs; and its example runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import nodes.aggregate
from mesh import Aggregate, Branches, Tensors
from nodes.aggregate import Gather, Select, WeightedMean
from tests.unit.nodes.joins import run

PAGE = (Path(__file__).parents[3] / "docs" / "aggregates.md").read_text()
ROWS = {found[1]: found[0] for found in re.finditer(r"^\| `([A-Z]\w+)` \|.*$", PAGE, re.MULTILINE)}
CLASSES: dict[str, type[Aggregate]] = {
    name: value
    for name, value in vars(nodes.aggregate).items()
    if inspect.isclass(value) and issubclass(value, Aggregate) and not inspect.isabstract(value)
}
MADE: dict[str, Callable[[], Aggregate]] = {
    **CLASSES,
    "Select": lambda: Select(by="a.b"),
    "WeightedMean": lambda: WeightedMean(weights={}),
    "Gather": lambda: Gather(how={}),
}


def test_the_page_has_a_row_for_each_aggregate() -> None:
    assert set(ROWS) == set(CLASSES)
    assert set(nodes.aggregate.__all__) >= set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_the_row_names_every_option_and_what_is_needed(name: str) -> None:
    options = set(inspect.signature(CLASSES[name]).parameters)
    *_, needs, told, _ = ROWS[name].split("|")
    assert set(re.findall(r"[`.]*\b([a-z]+)\b(?=[`:])", told)) >= options
    assert f"`{MADE[name]().needs}`" in needs


def test_the_examples_of_the_page_can_be_written_in_a_file_and_run() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        parts: dict[str, Any] = yaml.safe_load(block)
        for part in parts.get("nodes", parts).values():
            made = CLASSES[part["uses"].partition(":")[2]](**part["with"])
            assert isinstance(made, Aggregate)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "aggregates.md", "exec"), names)
    branches = Branches({"a": Tensors({"y": [[1.0], [2.0]]}), "b": Tensors({"y": [[5.0]]}, sources=[1])})
    assert run(names["Spread"](), branches) == Tensors({"y": [[0.0], [3.0]]})
