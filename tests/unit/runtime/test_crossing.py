from __future__ import annotations

import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import InvalidInput
from mesh.runtime.crossing import ROWS, arrived, packed
from mesh.runtime.rows import Rows
from mesh.runtime.state import State
from mesh.tensors import Array, Tensors

COUNT = np.array([5])


def test_edges_and_the_rows_of_nodes_arrive_as_they_were_packed() -> None:
    every = Rows(5)
    thinned = every.where(np.array([True, False, True, True, False]))
    expanded = thinned.expanded(np.array([0, 0, 2]))
    state = State(Context(), every, {"x": np.arange(5)})
    state.arrays["thinned.x"] = np.arange(3)
    state.note("thinned", thinned, thinned)
    state.arrays["expanded.x"] = np.arange(3)
    state.note("expanded", thinned, expanded)
    state.arrays["whole.x"] = np.arange(5)
    state.note("whole", every, every)
    sent = packed(state, ["x", "expanded.x", "whole.x"], ["expanded", "whole"])
    found = arrived(Tensors(sent), Context())
    assert found.all.count == 5
    assert list(found.arrays) == ["x", "expanded.x", "whole.x"]
    for rows, expected in ((found.given["expanded"], expanded), (found.taken["expanded"], thinned)):
        assert [level.tolist() for level in rows.levels] == [level.tolist() for level in expected.levels]
    assert set(found.given) == set(found.taken) == {"expanded"}


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {ROWS: np.array([-1])},
        {ROWS: np.array([1, 2])},
        {ROWS: np.array(5)},
        {ROWS: np.array([5.0])},
        {ROWS: COUNT, "n.@given.0": np.array([1.0])},
        {ROWS: COUNT, "n.@given.0": np.array([[1]])},
        {ROWS: COUNT, "n.@given.8": np.array([1])},
        {ROWS: COUNT, "n.@given.-1": np.array([1])},
        {ROWS: COUNT, "n.@given.x": np.array([1])},
        {ROWS: COUNT, "n.@given.1": np.array([1])},
        {ROWS: COUNT, "n.@given.0": np.array([1]), "n.@given.1": np.array([1, 2])},
        {ROWS: COUNT, "n.@given.0": np.array([2, 1])},
        {ROWS: COUNT, "n.@given.0": np.array([1, 1])},
        {ROWS: COUNT, "n.@given.0": np.array([-1, 1])},
        {ROWS: COUNT, "n.@given.0": np.array([1, 5])},
        {ROWS: COUNT, "n.@taken.0": np.array([2, 1]), "n.@taken.1": np.array([0, 1])},
        {ROWS: COUNT, "n.@taken.0": np.array([-1, 1]), "n.@taken.1": np.array([0, 1])},
        {ROWS: COUNT, "n.@taken.0": np.array([1, 7]), "n.@taken.1": np.array([0, 1])},
    ],
)
def test_what_tells_of_rows_and_is_no_such_thing_is_refused(tensors: dict[str, Array]) -> None:
    with pytest.raises(InvalidInput):
        arrived(Tensors(tensors), Context())


def test_expanded_rows_may_come_from_one_row_and_go_past_those_of_the_request() -> None:
    told = {"n.@given.0": np.array([4, 4, 4]), "n.@given.1": np.array([5, 6, 9])}
    assert arrived(Tensors({ROWS: COUNT, **told}), Context()).given["n"].count == 3
