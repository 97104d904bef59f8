from __future__ import annotations

import pytest

from mesh import Branches, InvalidInput, Tensors, Unavailable

WHOLE = Tensors({"x": [1, 2, 3]})
SOME = Tensors({"x": [2]}, sources=[1])


def test_branches_tell_the_rows_of_their_join() -> None:
    late = Unavailable("late")
    branches = Branches({"some": SOME, "late": late, "whole": WHOLE})
    assert branches.rows == 3
    assert list(branches) == ["some", "late", "whole"]
    assert branches.answers == {"some": SOME, "whole": WHOLE}
    assert branches.errors == {"late": late}


def test_where_no_branch_answers_every_row_somebody_has_to_say_how_many_there_are() -> None:
    with pytest.raises(InvalidInput, match="how many rows"):
        Branches({"some": SOME})
    assert Branches({"some": SOME}, rows=2).rows == 2


@pytest.mark.parametrize(
    "branch",
    [
        Tensors({"x": [1, 2]}),
        Tensors({"x": [1]}, sources=[3]),
    ],
)
def test_a_branch_of_other_rows_than_the_joins_is_refused_by_name(branch: Tensors) -> None:
    with pytest.raises(InvalidInput, match="branch 'odd'"):
        Branches({"whole": WHOLE, "odd": branch})


def test_several_rows_for_one_of_the_join_are_told_of_where_it_does_not_gather() -> None:
    several = Branches({"whole": WHOLE, "lines": Tensors({"x": [1, 2]}, sources=[1, 1])})
    with pytest.raises(InvalidInput, match="branch 'lines' has to answer each of its rows once"):
        several.check_once()
    Branches({"whole": WHOLE, "some": SOME}).check_once()
