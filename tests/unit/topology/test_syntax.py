"""A slip of syntax is told where it is, in words that say what to write instead: never libyaml's own."""

from __future__ import annotations

import pytest
import yaml

from mesh.topology.syntax import explain
from tests.unit.topology.given import GOOD, NODES, changed, told

INDENT = "(check the indentation, and that every key is written `key: value`)"
END = "something after the end of the topology (check the indentation, and for a bracket too many)"
BACKSLASH = "a backslash that stands for nothing (in double quotes write it twice, or use single quotes)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changed("  scale:", "\tscale:"), "6:1: a tab: YAML is indented with spaces"),
        (changed("    with: {divide_by: 16}", "\twith: {divide_by: 16}"), "8:1: a tab: YAML is indented with spaces"),
        (changed("digits", "@digits"), "2:7: a text cannot begin with '@' (put it in quotes)"),
        (changed("digits", "`digits`"), "2:7: a text cannot begin with '`' (put it in quotes)"),
        (
            changed("name: digits", "name: digits: two"),
            "2:13: a ':' where no key can stand (check the indentation; a text that holds ': ' needs quotes)",
        ),
        (
            changed(f"    uses: {NODES}:Join", f"     uses: {NODES}:Join"),
            f"22:5: something that does not go on with the mapping around it {INDENT}",
        ),
        (
            changed("  answer:", "   answer:"),
            f"20:4: something that does not go on with the mapping around it {INDENT}",
        ),
        (changed("outputs:\n", "outputs\n"), f"23:1: a key without ':' {INDENT}"),
        (changed("digits", '"\\digits"'), f"2:8: {BACKSLASH}"),
        (changed("digits", '"\\xdigits"'), f"2:10: {BACKSLASH}"),
        (changed("digits", '"\\uD800"'), f"2:10: {BACKSLASH}"),
        (
            changed("  label: answer.label", "  - label"),
            "25:3: something that does not go on with the list around it "
            "(begin every entry with '- ', equally indented)",
        ),
        (
            changed("[small, large]", "- small"),
            "22:13: a '-' where no list can begin (begin a list in a line of its own, or write [a, b])",
        ),
        (changed("{x: image}", "}"), "9:13: a value is expected here"),
        (
            changed("{x: image}", "{x:}"),
            "9:15: a ':' with nothing after it (write {key: value}, with a space after the ':')",
        ),
        (changed("digits", "* digits"), "2:8: a text cannot begin with '*' or '&' (put it in quotes)"),
        (changed("digits", "& digits"), "2:8: a text cannot begin with '*' or '&' (put it in quotes)"),
        (changed("digits", "> digits"), "2:9: a text cannot begin with '|' or '>' (put it in quotes)"),
        (changed("digits", "|digits"), "2:8: a text cannot begin with '|' or '>' (put it in quotes)"),
        (changed("digits", "!my!digits x"), "2:7: tags are not taken: write the plain value"),
        (changed("digits", "!<"), "2:9: tags are not taken: write the plain value"),
        (changed("description:", "description:", "description: |\n\tx\n"), "2:1: a tab: YAML is indented with spaces"),
        (GOOD + "...\nmesh: v1\n", f"31:1: {END}"),
        (f"  {GOOD}", f"2:1: {END}"),
        ("{mesh: v1}}", f"1:11: {END}"),
        (
            changed("[small, large]", "[small, large"),
            "23:8: a list in [ ] lacks a comma, or is not closed (it begins in line 22)",
        ),
        (
            changed("{x: image}", "{x: image"),
            "10:8: a mapping in { } lacks a comma, or is not closed (it begins in line 9)",
        ),
        (
            changed("{max_rows: 8, max_delay: 1ms}", "{max_rows: 8 max_delay: 1ms}"),
            "15:38: a mapping in { } lacks a comma, or is not closed",
        ),
        (changed('"grpc://127.0.0.1:7001"', '"grpc://127.0.0.1:7001'), "29:38: a quote that is never closed"),
        (changed('"grpc://127.0.0.1:7001"', "'grpc"), "29:38: a quote that is never closed"),
        (GOOD + 'x: "\n---\n', "30:4: a quote that is never closed"),
        ("%YAML 9.9\n---\n" + GOOD, "1:1: not YAML: found incompatible YAML document"),
    ],
)
def test_a_slip_of_syntax_is_told_in_plain_words(text: str, problem: str) -> None:
    assert told(text) == [problem]


def test_a_file_that_ends_too_soon_is_told_at_its_end() -> None:
    assert told("[") == ["1:2: a value is expected here"]
    assert told("mesh: v1\nnodes: [a") == ["2:10: a list in [ ] lacks a comma, or is not closed"]
    assert told("mesh: v1\nname") == [f"2:1: a key without ':' {INDENT}"]


def test_what_has_no_words_of_its_own_is_told_as_libyaml_has_it() -> None:
    assert told(changed("digits", "!%zz")) == ["2:8: not YAML: did not find URI escaped octet"]


def test_an_error_without_a_place_is_told_at_the_beginning() -> None:
    assert explain(yaml.YAMLError("lost"), "", (1, 1)) == (1, 1, "not YAML: lost", "")
    assert explain(yaml.MarkedYAMLError(), "", (1, 1)) == (1, 1, "not YAML: it cannot be read", "")
    assert explain(yaml.MarkedYAMLError(context="lost"), "", (1, 1)) == (1, 1, "not YAML: lost", "")
