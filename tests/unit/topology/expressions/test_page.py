from __future__ import annotations

import re

import pytest

from mesh.topology.expressions import parse
from mesh.topology.expressions.check import Checker
from mesh.topology.expressions.condition import typed
from mesh.topology.expressions.sorts import kind_of, sort_of
from mesh.topology.expressions.table import FUNCTIONS, OPERATORS, Function
from scripts.expressions_page import EDGES, OPERANDS, PAGE, TABLES, written
from tests.unit.topology.expressions.given import TYPES


def test_the_page_is_what_the_code_says() -> None:
    page = PAGE.read_text()
    assert written(page) == page
    assert re.findall(r"<!-- table: (\w+) -->", page) == list(TABLES)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda one: one.name)
def test_a_function_takes_and_gives_what_its_row_says(function: Function) -> None:
    assert typed(parse(function.example), EDGES)
    for edge, spec in TYPES.items():
        checker = Checker("", TYPES)
        checker.condition(parse(f"{function.name}({edge})").tree)
        taken = not any("takes" in mistake.text for mistake in checker.mistakes)
        assert taken == (kind_of(sort_of(edge, spec).datatype) in function.takes), edge


def test_every_example_of_an_operator_can_be_read_and_typed() -> None:
    for operator in OPERATORS:
        checker = Checker(operator.example, OPERANDS)
        checker.condition(parse(operator.example).tree)
        # What gives no BOOL, or more than one a row, is no condition, but is right all the same.
        wrong = [one.text for one in checker.mistakes if " gives " not in one.text]
        assert not wrong, operator.example
