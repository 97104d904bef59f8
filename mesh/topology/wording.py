"""What pydantic finds, in our words: what a value has to be, and what it is instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mesh.topology.source import Path, closest, did_you_mean, shown
from mesh.units import format_duration, format_size, parse_duration, parse_size

__all__ = ["NAME_RULE", "Complaint", "complaints", "keys_of"]

NAME_RULE = "lower case letters, digits, '_' and '-', a letter first, at most 63"


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong with a value."""

    steps: Path
    """The way to it, as far as there is one."""
    text: str
    hint: str = ""
    at_key: bool = False


_HAS_TO_BE = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "string_type": "a text",
    "bytes_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "null",
}
"""pydantic's kind of error -> what is wanted."""

_PATTERNS = {
    "uses": "has to be module:Class, as in nodes.text:Lowercase",
    "name": f"is no name: {NAME_RULE}",
    "group": f"is no name: {NAME_RULE}",
}


@dataclass(slots=True)
class _Place:
    """All that is wrong at one place."""

    wanted: list[str] = field(default_factory=list[str])
    """What the value may be: each member of a union wants something else."""
    given: object = None
    other: list[Complaint] = field(default_factory=list[Complaint])


def complaints(
    error: ValidationError,
    value: object,
    *,
    at: Path = (),
    subject: str = "",
    model: type[BaseModel] | None = None,
) -> list[Complaint]:
    """Everything that is wrong with a value, what members of a union say of one place told as one.

    Args:
        error: What pydantic found.
        value: What was held against a type, as it stands in the file, or what that lies in.
        at: The way from `value` to what was held against the type.
        subject: What to call the value as a whole.
        model: The type, where it is a model: tells which keys there are.
    """
    places: dict[Path, _Place] = {}
    details: list[ErrorDetails] = [{**one, "loc": (*at, *one["loc"])} for one in error.errors(include_url=False)]
    meant = {
        closest(str(one["loc"][-1]), keys_of(model, one["loc"][:-1]))
        for one in details
        if one["type"] == "extra_forbidden"
    }
    for one in details:
        steps = _inside(value, one["loc"])
        place = places.setdefault(steps, _Place())
        if one["type"] in _HAS_TO_BE:
            place.wanted.append(_HAS_TO_BE[one["type"]])
            place.given = one["input"]
        elif not (one["type"] == "missing" and one["loc"][-1] in meant):  # else it is there, misspelled
            place.other.append(_told(one, steps, _label(steps) or subject, model))
    found: list[Complaint] = []
    for steps, place in places.items():
        if place.wanted:
            found.append(_mistyped(steps, _label(steps) or subject, place))
        found.extend(place.other)
    return found


def _mistyped(steps: Path, label: str, place: _Place) -> Complaint:
    wanted = list(dict.fromkeys(place.wanted))
    quotes = "a text" in wanted and isinstance(place.given, bool | int | float)
    text = f"{label!r} has to be {' or '.join(wanted)}, not {shown(place.given)}"
    return Complaint(steps, text, "put it in quotes" if quotes else "")


def _told(one: ErrorDetails, steps: Path, label: str, model: type[BaseModel] | None) -> Complaint:
    context: dict[str, Any] = one.get("ctx", {})
    given, last = one["input"], one["loc"][-1] if one["loc"] else ""
    bounds = {"greater_than": ("above", "gt"), "greater_than_equal": ("at least", "ge")}
    bounds |= {"less_than": ("below", "lt"), "less_than_equal": ("at most", "le")}
    match one["type"]:
        case "extra_forbidden":
            hint = did_you_mean(str(last), keys_of(model, one["loc"][:-1]))
            return Complaint(steps, f"{shown(last)} is not taken here", hint, at_key=True)
        case "missing" if isinstance(last, int):
            return Complaint(steps, f"{label!r} lacks entry {last + 1}")
        case "missing":
            return Complaint(steps, f"{last!r} is missing", at_key=True)
        case "value_error" | "assertion_error":
            return Complaint(steps, f"{label!r}: {one['msg'].partition(', ')[2]}")
        case "string_pattern_mismatch" if last in _PATTERNS:
            return Complaint(steps, f"{shown(given)} {_PATTERNS[str(last)]}")
        case "string_pattern_mismatch":
            return Complaint(steps, f"{label!r} has to match {context['pattern']!r}, not {shown(given)}")
        case "too_long" | "string_too_long":
            of = "characters" if isinstance(given, str) else "entries"
            text = f"{label!r} may have at most {context['max_length']} {of}, not {len(given)}"
            return Complaint(steps, text)
        case "too_short" | "string_too_short":
            return Complaint(steps, f"{label!r} may not be empty" if not given else f"{label!r} is too short")
        case kind if kind in bounds:
            word, key = bounds[kind]
            return Complaint(steps, f"{label!r} has to be {word} {_bound(given, context[key])}, not {shown(given)}")
        case "inputs_form" | "join_form" | "store_form" | "on_error_form":
            return Complaint(steps, f"{label!r} {one['msg']}, not {shown(given)}")
        case _:
            text = one["msg"].replace("Input should be", "has to be", 1)
            return Complaint(steps, f"{label!r} {text[:1].lower()}{text[1:]}, not {shown(given)}")


def _bound(given: object, bound: float) -> str:
    """A bound in the unit that the value is written in."""
    for parse, told in (
        (parse_duration, format_duration(bound) if bound > 86_400 else f"{bound:g}s"),
        (parse_size, format_size(int(bound))),
    ):
        try:
            parse(given)
        except ValueError:
            continue
        return told
    return str(int(bound)) if bound == int(bound) else str(bound)


def _label(steps: Path) -> str:
    """`limits.max_message`, `shape[1]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _inside(value: object, loc: Sequence[str | int]) -> Path:
    """The way into a value, less the steps that are not in it: members of unions, and what is missing."""
    steps: list[str | int] = []
    for step in loc:
        if isinstance(value, dict) and step in value:
            value = cast("dict[Any, Any]", value)[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(cast("list[Any]", value)):
            value = cast("list[Any]", value)[step]
        else:
            continue
        steps.append(step)
    return tuple(steps)


def keys_of(model: type[BaseModel] | None, place: Sequence[str | int] = ()) -> list[str]:
    """The keys that a model takes, or that a model inside it takes."""
    for step in place:
        fields = {} if model is None else {one.alias or name: one for name, one in model.model_fields.items()}
        if str(step) in fields:  # else it tells which member of a union is meant
            model = _model_in(fields[str(step)].annotation)
    return [one.alias or name for name, one in model.model_fields.items()] if model else []


def _model_in(hint: Any) -> type[BaseModel] | None:
    """The model that a value of this type is held against, if there is one."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for inner in get_args(hint) if (found := _model_in(inner)) is not None), None)
