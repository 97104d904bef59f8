from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.topology.expressions import ExpressionError, Mistake, parse, pointed, tree, typed
from mesh.topology.expressions.tree import Tree, leaves
from mesh.topology.expressions.words import MAX_BYTES, MAX_DEPTH, MAX_LITERALS
from tests.unit.topology.expressions.given import TYPES, conditions

CANONICAL = {
    " max( small.probabilities )<0.90": "max(small.probabilities) < 0.9",
    "-x[0]+3*(2-a.b/c)//2>=-1.50 and not(a or b)": "-x[0] + 3 * (2 - a.b / c) // 2 >= -1.5 and not (a or b)",
    "(a and b) and c": "(a and b) and c",
    "a - (b - c) - d": "a - (b - c) - d",
    "(0.2)<x[1:4,-1]<=(3)": "0.2 < x[1:4, -1] <= 3",
    'label in (\'cat\', "d\\"og",)': 'label in ["cat", "d\\"og"]',
    "not x in [1]": "not x in [1]",
    "x not in [-1, True]": "x not in [-1, true]",
    "x\n  < 1\n": "x < 1",
    "x[::] == - 5": "x[:] == -5",
    "parameters.user.tier == 'a\\\\b\\n'": 'parameters.user.tier == "a\\\\b\\n"',
    "parameters['x-tier'] != edges['a-b.c/d']": 'parameters["x-tier"] != edges["a-b.c/d"]',
    "edges['plain.name'] or edges['true'] or edges['parameters.x']": (
        'plain.name or edges["true"] or edges["parameters.x"]'
    ),
    '"é" == t': '"é" == t',
}


@pytest.mark.parametrize("text", CANONICAL)
def test_what_is_said_has_one_canonical_text(text: str) -> None:
    expression = parse(text)
    assert str(expression) == CANONICAL[text]
    assert parse(str(expression)) == expression
    assert hash(parse(str(expression))) == hash(expression)


def test_a_truth_and_numbers_of_equal_value_are_different_things() -> None:
    assert len({parse(f"x == {literal}") for literal in ("1", "1.0", "true", "True", '"1"')}) == 4


def test_names_are_told_with_their_places() -> None:
    text = 'max(small.p) < parameters.least and "é" != edges["a-b.c"] and small.p[0] > 1'
    expression = parse(text)
    assert [(type(one).__name__, one.name, text[slice(*one.span)]) for one in expression.names] == [
        ("Edge", "small.p", "small.p"),
        ("Parameter", "least", "parameters.least"),
        ("Edge", "a-b.c", 'edges["a-b.c"]'),
        ("Edge", "small.p", "small.p"),
    ]
    assert expression.edges == ("small.p", "a-b.c")


REFUSED = {
    "": (0, 1, "the expression is empty"),
    "  ": (0, 2, "the expression is empty"),
    "x < ": (3, 4, "something is missing after '<'"),
    "a and": (5, 6, "something is missing after 'and'"),
    "(x": (0, 1, "'(' is never closed"),
    "x)": (1, 2, "')' closes nothing"),
    "(x]": (2, 3, "']' closes nothing: '(' is open"),
    "a b": (2, 3, "'b' cannot follow 'a'"),
    "*x": (0, 1, "'*' cannot stand here"),
    ".x": (0, 1, "'.' cannot stand here"),
    "a == not b": (5, 8, "'not' cannot stand here"),
    "a not b": (6, 7, "'b' cannot follow 'not'"),
    "x ** 2": (2, 4, "'**' is not of this language (there are no powers: multiply)"),
    "x = 1": (2, 3, "'=' is not of this language (write == to compare)"),
    "x && y": (2, 4, "'&&' is not of this language (write and)"),
    "x # what": (2, 3, "'#' is not of this language (there are no comments here: write it as a comment of the file)"),
    "x; y": (1, 2, "';' is not of this language"),
    "é < 1": (0, 1, "'é' is not of this language (a name is written edges[\"...\"])"),
    "\ufb01eld < 1": (0, 1, "'\ufb01' is not of this language (a name is written edges[\"...\"])"),
    "x\0": (1, 2, "character U+0000 cannot stand here"),
    'x == "\ud800"': (6, 7, "character U+D800 cannot stand in a text"),
    'x == "a\nb"': (5, 6, "a text that is never closed (it has to end in the line it begins in)"),
    'f"{x}" == y': (0, 1, "a text takes nothing before its quote, and here is 'f'"),
    'x == "a" "b"': (9, 12, "a text directly after a text (in a list, write a comma between them)"),
    '"""a"""': (2, 5, "a text directly after a text (in a list, write a comma between them)"),
    '"\\d" == x': (1, 3, "\\d stands for nothing (there are \\\\, \\\", \\', \\n, \\r and \\t)"),
    "0x10 == x": (0, 4, "'0x10' is no number"),
    "1_0 == x": (0, 3, "'1_0' is no number"),
    "007 == x": (0, 3, "'007' is no number (write it without the leading zero)"),
    "x < 1e400": (4, 9, "the number does not fit into 64 bits"),
    "x < 18446744073709551616": (4, 24, "the number does not fit into 64 bits"),
    "x < -9223372036854775809": (4, 24, "the number does not fit into 64 bits"),
    "x is None": (2, 4, "'is' is a word that cannot stand here (write ==)"),
    "a if b else c": (2, 4, "'if' is a word that cannot stand here (in the name of an edge: edges[\"node.tensor\"])"),
    "a.class == 1": (2, 7, "'class' is a word that cannot stand here (in the name of an edge: edges[\"node.tensor\"])"),
    "x.in == 1": (2, 4, "'in' is a word that cannot stand here (in the name of an edge: edges[\"node.tensor\"])"),
    "x[::2]": (4, 5, "a range of columns takes no step"),
    "x[y] > 1": (2, 3, "an index is a whole number (as in x[3], x[-1], x[1:4] or x[0, 2])"),
    "x[1.5]": (2, 5, "an index is a whole number (as in x[3], x[-1], x[1:4] or x[0, 2])"),
    "x[()]": (2, 4, "an index is a whole number (as in x[3], x[-1], x[1:4] or x[0, 2])"),
    "x[2147483648]": (2, 12, "an index is at most 2147483647"),
    "max(a, b) > 1": (0, 9, "max takes one value (write max(node.tensor))"),
    "[1, 2]": (0, 6, "a list cannot stand here (a list stands right of in: x in [1, 2])"),
    '"cat" in t': (9, 10, "right of 'in' stands a list of values (write in"),
    "x in []": (5, 7, "the list is empty: nothing is in it"),
    "x in [y]": (6, 7, "a list holds numbers, texts or truths as they are"),
    "1 < x in [1]": (0, 12, "`in` cannot be part of a chain (join the two by and)"),
    "+x > 1": (0, 2, "this sign cannot stand here (leave it out)"),
    "parameters": (0, 10, "say which of the parameters (write parameters.NAME)"),
    "parameters[0]": (11, 12, 'parameters[ ] takes a name in quotes (write parameters["name"])'),
    "edges.x": (0, 7, 'say which of the edges (write edges["node.tensor"])'),
    "(a < b).c": (0, 9, "only a node has something behind a dot (write node.tensor)"),
    "x.y(z)": (0, 3, "only a function of this language can be called (as in max(node.tensor))"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_expression_is_refused_at_its_place(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    (mistake,) = caught.value.mistakes
    start, end, told = REFUSED[text]
    assert (mistake.start, mistake.end) == (start, end)
    assert str(mistake).startswith(told)


ESCAPES = [
    "().__class__.__bases__[0].__subclasses__()",
    "__import__('os').system('true')",
    "(lambda: 1)()",
    "[x for x in [1]]",
    "{1: 2}",
    "x := 1",
    "max.__self__(x)",
    "max(x).__class__",
    "x.__class__.__mro__[1]",
    "'{0.__class__}'.format(x)",
    "f'{x}'",
    "b'x' == x",
    "x @ y",
    "await x",
    "yield",
    "print(*x)",
    "exec(compile('1', '', 'eval'))",
    "open('x')",
    "globals()['x']",
    "9**9**9**9",
    "1 << 9999",
    "`x`",
    "x.y.z(1)",
    "any(x for x in y)",
    "edges[x]",
    "parameters[x.y]",
    "parameters.get('x')",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_outside_the_language_can_be_reached(text: str) -> None:
    with pytest.raises(ExpressionError):
        typed(parse(text), TYPES)


WORDS = [
    *("f", "t", "n.q", "parameters.a", "edges", "true", "0", "1.5", '"a"', "é", "lambda", "if"),
    *("max(", "any(", ")", "(", "[", "]", ",", ":", ".", "in", "not", "and", "or", "<", "==", "-", "+", "*"),
]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.text(alphabet="ab.()[]<>=!&|*/%+-:,'\"\\ \n#01e_{}@~", max_size=60),
        st.lists(
            st.sampled_from(WORDS),
            max_size=25,
        ).map(" ".join),
    )
)
def test_any_text_is_an_expression_or_an_expression_error_with_a_place_in_it(text: str) -> None:
    found: tuple[Mistake, ...] = ()
    try:
        typed(parse(text), TYPES)
    except ExpressionError as error:
        found = error.mistakes or (Mistake(-1, -1, "an error without a mistake"),)
    for mistake in found:
        assert 0 <= mistake.start < mistake.end <= len(text) + 1
        assert "\n" not in str(mistake)
        line, carets = pointed(text, mistake)
        assert line.isprintable()
        assert set(carets.strip()) == {"^"}


@settings(max_examples=100, deadline=None)
@given(conditions())
def test_a_tree_holds_only_what_the_language_has(text: str) -> None:
    found = parse(text)
    assert isinstance(found.tree, get_args(Tree))
    for leaf in leaves(found.tree):
        assert isinstance(leaf, tree.Literal | tree.Edge | tree.Parameter)


def test_limits() -> None:
    longest = "x == 1" + " " * (MAX_BYTES - 6)
    assert str(parse(longest)) == "x == 1"
    many = f"x in [{','.join(['1'] * MAX_LITERALS)}]"
    assert parse(many)
    for text, told in {
        longest + " ": f"the expression is longer than {MAX_BYTES} bytes",
        '"' + "é" * (MAX_BYTES // 2) + '"': f"the expression is longer than {MAX_BYTES} bytes",
        many[:-1] + ",1]": f"more than {MAX_LITERALS} numbers, texts and truths",
        "(" * 40 + "x" + ")" * 40: f"nested deeper than {MAX_DEPTH} levels",
        "-" * 900 + "x": f"nested deeper than {MAX_DEPTH} levels",
        "not " * 200 + "x": f"nested deeper than {MAX_DEPTH} levels",
        "+".join(["x"] * 300): f"nested deeper than {MAX_DEPTH} levels",
        "x" + "[0]" * 80: f"nested deeper than {MAX_DEPTH} levels",
        "x" * 100_000: f"the expression is longer than {MAX_BYTES} bytes",
    }.items():
        with pytest.raises(ExpressionError) as caught:
            parse(text)
        assert [one.text for one in caught.value.mistakes] == [told]


def test_a_flat_chain_is_not_deep() -> None:
    assert parse(" or ".join(["x"] * 200))


def _pointed(text: str) -> tuple[str, str]:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert str(caught.value).splitlines()[1:] == list(pointed(text, caught.value.mistakes[0]))
    return pointed(text, caught.value.mistakes[0])


def test_carets_stand_under_the_mistake() -> None:
    assert _pointed("x ** 2") == ("x ** 2", "  ^^")
    assert _pointed("x <") == ("x <", "   ^")
    assert _pointed("x < 1 and\n  y ** 2\n or z") == ("  y ** 2", "    ^^")
    assert _pointed('t == "日本" ** 2') == ('t == "日本" ** 2', "            ^^")
    line, carets = _pointed("x + " * 60 + "y ** 2 " + "+ z" * 60)
    assert line.startswith("...")
    assert line.endswith("...")
    assert line[slice(carets.index("^"), len(carets))] == "**"
