"""YAML's traps: each is told with its place, and in words that say what to write instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import TopologyError
from mesh.layers import LAYERS
from mesh.topology import compile_file
from mesh.topology.source import MAX_BYTES, MAX_VALUES, did_you_mean, read, shown
from tests.unit.topology.given import GOOD, changed, told


def with_number(text: str) -> str:
    return changed("divide_by: 16", f"divide_by: {text}")


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello\n", "- a\n", "5\n", "~\n", " \n \n"])
def test_a_file_that_is_no_mapping_is_told_how_to_begin(text: str) -> None:
    assert told(text) == ["1:1: a topology is a mapping that begins with `mesh: v1`"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changed("name: digits", "name: digits\nname: other"), "3:1: key 'name' comes twice; first in line 2"),
        (changed("  large:", "  scale:"), "16:3: key 'scale' comes twice; first in line 6"),
        (
            changed("{divide_by: 16}", "&d {divide_by: 16}"),
            "8:11: anchors are not taken: write the value out where it is used",
        ),
        (changed("{divide_by: 16}", "*d"), "8:11: aliases are not taken: write the value out"),
        (
            changed("{divide_by: 16}", "{<<: {a: 1}, divide_by: 16}"),
            "8:12: merge keys are not taken: write the values out",
        ),
        (changed("{divide_by: 16}", "!!map {divide_by: 16}"), "8:11: tags are not taken: write the plain value"),
        (with_number("! 16"), "8:23: tags are not taken: write the plain value"),
        (with_number("!!python/object/apply:os.system [ls]"), "8:23: tags are not taken: write the plain value"),
        (GOOD + "---\nmesh: v1\n", "30:1: a second document: a file holds one topology"),
        (GOOD + f"x: {'[' * 20}{']' * 20}\n", "30:19: nested deeper than 16 levels"),
        (GOOD + "? [a]\n: 1\n", "30:3: a key has to be a text"),
        (changed("{x: image}", "{x:image}"), "9:14: 'x:image' has no value (write a space after the ':')"),
    ],
)
def test_more_of_yaml_than_a_topology_needs_is_refused(text: str, problem: str) -> None:
    assert problem in told(text)


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "\ufeff", "\uffff"])
def test_a_character_that_no_editor_shows_is_told_by_its_number(character: str) -> None:
    problem = f"2:10: character U+{ord(character):04X} is not taken in a topology file"
    assert told(changed("digits", f"dig{character}its")) == [problem]


def test_lines_are_counted_as_editors_count_them() -> None:
    for end in ("\n", "\r\n", "\r"):
        assert told(changed("mesh: v1", "mesh: v2").replace("\n", end)) == ["1:7: 'mesh' has to be 'v1', not 'v2'"]
        broken = changed("  scale:", "\tscale:").replace("\n", end)
        assert told(broken) == ["6:1: a tab: YAML is indented with spaces"]
        assert told(changed("digits", "dig\0its").replace("\n", end))[0].startswith("2:10: ")


def test_a_byte_order_mark_shifts_no_column() -> None:
    assert told("\ufeff" + GOOD) == []
    assert told("\ufeff" + changed("mesh: v1", "mesh: v2")) == ["1:7: 'mesh' has to be 'v1', not 'v2'"]


@pytest.mark.parametrize(
    "text",
    ["no", "yes", "on", "True", "12:30:45", "0x10", "0o10", "010", "1_000", ".inf", ".nan", "2024-01-01", "1e", "="],
)
def test_only_plain_decimal_numbers_are_numbers(text: str) -> None:
    assert told(with_number(text)) == [f"8:23: 'divide_by' has to be a number, not {text!r}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-0", 0),
        ("+5", 5),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        (".5", 0.5),
        ("5.", 5.0),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("no", "no"),
        ("yes", "yes"),
        ("True", "True"),
        ("12:30:45", "12:30:45"),
        ("0x10", "0x10"),
        ("010", "010"),
        ("2024-01-01", "2024-01-01"),
        ("'5'", "5"),
        ("true", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("a: 1", {"a": 1}),
    ],
)
def test_plain_scalars_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    source = read(f"key:\n  {text}\n", "t.yaml")
    assert source.value == {"key": value}
    assert type(source.value["key"]) is type(value)


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "9" * 5000, "1e999", "-1e999"])
def test_a_number_past_64_bits_is_refused_where_it_stands(text: str) -> None:
    problem = f"8:23: number {text[:40]} does not fit into 64 bits (if it is a text, put it in quotes)"
    assert told(with_number(text)) == [problem]


def test_all_that_yaml_alone_shows_is_told_at_once() -> None:
    assert told("a: &x 1\nb: *x\nc: !t 2\n---\nd: 1\n") == [
        "1:4: anchors are not taken: write the value out where it is used",
        "2:4: aliases are not taken: write the value out",
        "3:4: tags are not taken: write the plain value",
        "4:1: a second document: a file holds one topology",
    ]


def test_a_key_that_comes_twice_hides_no_other_mistake() -> None:
    text = changed("  large:", "  scale:", changed("mesh: v1", "mesh: v2"))
    assert told(text)[:2] == [
        "1:7: 'mesh' has to be 'v1', not 'v2'",
        "16:3: key 'scale' comes twice; first in line 6",
    ]


def test_a_few_lines_of_aliases_do_not_become_gigabytes() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
    assert len(told("\n".join(lines))) == 12 + 11 * 10


def test_a_file_past_its_bounds_is_refused() -> None:
    assert told("#" * MAX_BYTES + "\n") == [f"1:1: the file is longer than {MAX_BYTES} bytes"]
    assert told("# é" + "é" * (MAX_BYTES // 2)) == [f"1:1: the file is longer than {MAX_BYTES} bytes"]
    problem = f"1:499999: the file holds more than {MAX_VALUES} keys and values"
    assert told(f"x: [{'a,' * (MAX_VALUES + 5)}]") == [problem]


def test_a_file_of_just_the_size_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"#" * (MAX_BYTES - len(GOOD.encode())))
    assert compile_file(file, LAYERS).graph.name == "digits"
    file.write_bytes(file.read_bytes() + b"#")
    with pytest.raises(TopologyError, match=f"longer than {MAX_BYTES} bytes"):
        compile_file(file, LAYERS)


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(TopologyError, match=f"/dev/zero:1:1: error: the file is longer than {MAX_BYTES} bytes"):
        compile_file(Path("/dev/zero"), LAYERS)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"mesh: v1\nname: \xff\n", "2:7"),
        ("mesh: v1\r\nnamé: ".encode() + b"\xe9\n", "2:7"),
        ("mesh: v1\n".encode("utf-16"), "1:1"),
        (b"mesh: v1\n\xc3", "2:1"),
    ],
)
def test_a_file_that_is_not_utf_8_is_told_where(data: bytes, place: str, tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(data)
    with pytest.raises(TopologyError) as raised:
        compile_file(file, LAYERS)
    assert str(raised.value) == f"{file}:{place}: error: is not UTF-8"


def test_a_character_cut_off_by_the_bound_is_not_called_wrong(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(b"#" * (MAX_BYTES - 1) + b"\xc3")
    with pytest.raises(TopologyError, match="is not UTF-8"):
        compile_file(file, LAYERS)
    file.write_text("é" * MAX_BYTES)
    file.write_bytes(b"x" + file.read_bytes())
    with pytest.raises(TopologyError, match="longer than"):
        compile_file(file, LAYERS)


def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(TopologyError) as raised:
        compile_file(tmp_path / "gone.yaml", LAYERS)
    assert str(raised.value) == f"{tmp_path}/gone.yaml:1:1: error: cannot be read: No such file or directory"
    with pytest.raises(TopologyError, match="cannot be read: Is a directory"):
        compile_file(tmp_path, LAYERS)
    circle = tmp_path / "circle.yaml"
    os.symlink(circle, circle)
    with pytest.raises(TopologyError, match="cannot be read: Too many levels of symbolic links"):
        compile_file(circle, LAYERS)


def test_a_mistake_is_one_short_line_whatever_it_shows() -> None:
    key = "k" * 5000
    (problem,) = told(GOOD + f"? {key}\n: 1\n")
    assert problem.startswith(f"30:3: '{'k' * 56}... is no part of a topology")
    (problem,) = told(changed("name: digits", 'name: "a\\nb\\e[31m"'))
    assert problem.startswith("2:7: 'a\\nb\\x1b[31m' is no name")


def test_a_text_is_cut_only_where_it_is_too_long() -> None:
    assert shown("x" * 58) == f"'{'x' * 58}'"
    assert shown("x" * 59) == f"'{'x' * 56}..."
    source = read("a: 1", "t.yaml")
    assert source.problem((), "x" * 600).text == "x" * 600
    assert source.problem((), "x" * 601).text == f"{'x' * 597}..."


@given(st.text())
def test_any_value_is_shown_in_one_short_line(text: str) -> None:
    assert len(shown(text)) <= 60
    assert shown(text).isprintable()


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("scal", ["scale", "small"], "did you mean 'scale'?"),
        ("SCALE", ["scale"], "did you mean 'scale'?"),
        ("zzz", ["scale", "small"], "there is: scale, small"),
        ("zzz", [str(n) for n in range(11)], "there is: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (11 in all)"),
        ("zzz", [], ""),
    ],
)
def test_a_hint_names_what_was_meant_or_what_there_is(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint


def test_guesses_end_before_they_cost_seconds() -> None:
    source = read("{}", "t.yaml")
    names = [f"n{i}" for i in range(1000)]
    hints = [source.near(f"{i}n", names) for i in range(1000)]
    assert hints[0] == did_you_mean("0n", names) != ""
    assert hints.count("") > 800
