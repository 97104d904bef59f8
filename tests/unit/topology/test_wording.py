"""What pydantic finds, in our words."""

from __future__ import annotations

import enum
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, TypeAdapter, ValidationError

from mesh.topology.wording import Complaint, complaints, keys_of
from mesh.units import Duration, Size


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    many: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    inner: Inner = Inner()
    with_: Annotated[int, Field(alias="with")] = 0
    needed: str
    maybe: Annotated[Inner, Tag("mapping")] | Literal["none"] = "none"


def _even(value: int) -> int:
    if value % 2:
        raise AssertionError("it has to be even")
    return value


def told(kind: Any, value: object) -> list[str]:
    """What is wrong with a value that is called `it`."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        found = complaints(error, {"it": value}, at=("it",))
        return [f"{one.text} ({one.hint})" if one.hint else one.text for one in found]
    return []


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (int, "5", "'it' has to be a whole number, not '5'"),
        (int, 1.5, "'it' has to be a whole number, not 1.5"),
        (float, "x", "'it' has to be a number, not 'x'"),
        (bool, 1, "'it' has to be true or false, not 1"),
        (str, 5, "'it' has to be a text, not 5 (put it in quotes)"),
        (str, True, "'it' has to be a text, not true (put it in quotes)"),
        (str, ["a"], "'it' has to be a text, not ['a']"),
        (str, None, "'it' has to be a text, not nothing"),
        (bytes, 5, "'it' has to be a text, not 5 (put it in quotes)"),
        (None, 5, "'it' has to be null, not 5"),
        (list[int], "a", "'it' has to be a list, not 'a'"),
        (list[int], [1, "a"], "'it[1]' has to be a whole number, not 'a'"),
        (tuple[int, ...], 5, "'it' has to be a list, not 5"),
        (set[int], 5, "'it' has to be a list, not 5"),
        (frozenset[int], 5, "'it' has to be a list, not 5"),
        (dict[str, int], [1], "'it' has to be a mapping, not [1]"),
        (dict[str, list[int]], {"a": [1, "x"]}, "'it.a[1]' has to be a whole number, not 'x'"),
        (int | list[int], "a", "'it' has to be a whole number or a list, not 'a'"),
        (int | str, 1.5, "'it' has to be a whole number or a text, not 1.5 (put it in quotes)"),
        (Literal["a", "b"], "c", "'it' has to be 'a' or 'b', not 'c'"),
        (Annotated[int, Field(gt=3)], 3, "'it' has to be above 3, not 3"),
        (Annotated[int, Field(ge=3)], 2, "'it' has to be at least 3, not 2"),
        (Annotated[int, Field(lt=3)], 3, "'it' has to be below 3, not 3"),
        (Annotated[int, Field(le=3)], 4, "'it' has to be at most 3, not 4"),
        (Annotated[Duration, Field(ge=0.5)], "100ms", "'it' has to be at least 0.5s, not '100ms'"),
        (Annotated[Size, Field(le=1024)], "2MiB", "'it' has to be at most 1KiB, not '2MiB'"),
        (Annotated[int, Field(multiple_of=2)], 3, "'it' has to be a multiple of 2, not 3"),
        (Annotated[str, Field(min_length=1)], "", "'it' may not be empty"),
        (Annotated[str, Field(min_length=3)], "ab", "'it' is too short"),
        (Annotated[str, Field(max_length=1)], "ab", "'it' may have at most 1 characters, not 2"),
        (Annotated[list[int], Field(min_length=2)], [1], "'it' is too short"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "'it' may have at most 1 entries, not 2"),
        (tuple[int, str], [1], "'it' has to be a list, not [1]"),
        (Annotated[str, Field(pattern="^a$")], "b", "'it' has to match '^a$', not 'b'"),
        (Annotated[int, AfterValidator(_even)], 3, "'it': it has to be even"),
        (date, 5, "'it' has to be a valid date, not 5"),
        (Inner, {"many": "x"}, "'it.many' has to be a whole number, not 'x'"),
    ],
)
def test_each_kind_of_mistake_has_its_words(kind: Any, value: object, text: str) -> None:
    assert told(kind, value) == [text]


def test_a_tuple_tells_which_entry_it_lacks() -> None:
    adapter = TypeAdapter(tuple[int, str])
    with pytest.raises(ValidationError) as raised:
        adapter.validate_json("[1]", strict=True)
    assert complaints(raised.value, {"it": [1]}, at=("it",)) == [Complaint(("it",), "'it' lacks entry 2")]


def of_model(value: object) -> list[Complaint]:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(value, by_alias=True, by_name=False)
    return complaints(raised.value, value, subject="outer", model=Outer)


def test_keys_are_told_by_what_the_model_takes() -> None:
    assert of_model({"needed": "x", "wiht": 1}) == [
        Complaint(("wiht",), "'wiht' is not taken here", "did you mean 'with'?", at_key=True)
    ]
    assert of_model({"needed": "x", "inner": {"mny": 1}}) == [
        Complaint(("inner", "mny"), "'mny' is not taken here", "did you mean 'many'?", at_key=True)
    ]
    assert of_model({"needed": "x", "zzz": 1}) == [
        Complaint(("zzz",), "'zzz' is not taken here", "there is: inner, with, needed, maybe", at_key=True)
    ]


def test_a_key_that_is_misspelled_is_not_told_to_be_missing_too() -> None:
    assert of_model({}) == [Complaint((), "'needed' is missing", at_key=True)]
    assert of_model({"neded": "x"}) == [
        Complaint(("neded",), "'neded' is not taken here", "did you mean 'needed'?", at_key=True)
    ]


def test_a_value_as_a_whole_is_called_by_its_name() -> None:
    assert of_model(5) == [Complaint((), "'outer' has to be a mapping, not 5")]


def test_the_keys_of_a_model_and_of_a_model_in_it_are_known() -> None:
    assert keys_of(Outer) == ["inner", "with", "needed", "maybe"]
    assert keys_of(Outer, ("inner",)) == ["many"]
    assert keys_of(Outer, ("needed",)) == []
    assert keys_of(Outer, ("needed", "deeper")) == []
    assert keys_of(Outer, ("maybe",)) == keys_of(Outer, ("maybe", "mapping")) == ["many"]
    assert keys_of(None) == []
