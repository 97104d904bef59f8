"""What a topology holds of a file, and of what it is in doubt."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from mesh.topology.source import read
from mesh.topology.spec import (
    NAME_PATTERN,
    STAND_INS,
    HeaderFile,
    InputFile,
    LimitsFile,
    NodeFile,
    Topology,
    WorkerFile,
)


def topology(text: str) -> Topology:
    return Topology(read(text, "t.yaml"), HeaderFile(mesh="v1", name="n"))


def test_a_part_is_in_doubt_with_all_that_is_in_it() -> None:
    made = topology("nodes: {a: {uses: x}}")
    made.wrong = {("nodes", "a", "with"), ("inputs",)}
    assert made.doubts("nodes", "a", "with")
    assert made.doubts("nodes", "a", "with", "model")
    assert made.doubts("inputs", "image", "shape")
    assert not made.doubts("nodes", "a")
    assert not made.doubts("nodes", "a", "inputs")
    assert not made.doubts("outputs")


def test_the_keys_of_a_section_are_known_right_or_wrong() -> None:
    made = topology("nodes: {a: 5, B: }\ninputs: [x]\n")
    assert made.written("nodes") == ["a", "B"]
    assert made.written("inputs") == []
    assert made.written("outputs") == []


@pytest.mark.parametrize("model", STAND_INS)
def test_a_stand_in_is_itself_right(model: type) -> None:
    assert model.model_validate(STAND_INS[model])  # type: ignore[attr-defined]  # pyright: ignore


@pytest.mark.parametrize(
    "part",
    [
        HeaderFile(mesh="v1", name="n"),
        LimitsFile(),
        InputFile(datatype="FP32", shape=[-1]),
        NodeFile(uses="m:C", inputs={}),
        WorkerFile(nodes=[]),
    ],
)
def test_a_part_is_a_value_that_cannot_be_changed(
    part: HeaderFile | LimitsFile | InputFile | NodeFile | WorkerFile,
) -> None:
    assert part == part.model_copy()
    name = next(iter(type(part).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, name, None)


def test_every_bound_has_a_default_and_none_is_infinite() -> None:
    limits = LimitsFile()
    assert (limits.max_message, limits.max_in_flight, limits.default_timeout) == (64 << 20, 1024, 30.0)
    assert WorkerFile(nodes=[]).replicas == 1


def test_the_pattern_of_names_takes_what_it_says() -> None:
    for name in ("a", "a1", "a-b_c", "x" * 63):
        assert re.fullmatch(NAME_PATTERN, name)
    for name in ("", "A", "1a", "-a", "_a", "a.b", "a b", "x" * 64, "é"):
        assert not re.fullmatch(NAME_PATTERN, name)
