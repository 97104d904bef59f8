from __future__ import annotations

import pytest

from mesh.signature import Signature, TensorSpec
from mesh.topology.expressions import ExpressionError, mistakes, parse, typed

TYPES = Signature.parse(
    "image: FP32[rows, 64], text: BYTES[rows, 1], n: INT64[rows], u: UINT8[rows, 3], flag: BOOL[rows],"
    "small.probabilities: FP32[rows, 10], small.label: BYTES[rows], turn-page.score/0: FP32[rows],"
    "open.p: FP32[rows, ?], open.q: FP32[rows, ?], any.t: FP32[rows, ...], half.p: BF16[rows, 2, 3],"
    "half.empty: FP32[rows, 0], cut: INT32[n] ->"
).inputs

FITS = [
    "max(small.probabilities) < 0.9",
    "small.probabilities[0] > small.probabilities[-1]",
    'small.label in ["cat", "dog"] and text == "x"',
    'text[0] == "x"',
    "u[0] - u[1] < 0",
    "any(abs(image - mean(image)) > 3)",
    "any(open.p > open.q)",
    "sum(any.t > 0.5) > 3",
    "max(half.p[0]) > 1 or half.p[-1, 2] < 0",
    'edges["turn-page.score/0"] < 0.5',
    "n in [1, 2.0, -3]",
    'parameters.tier == "gold"',
    "parameters.fast",
    "parameters.least < n",
    "0.2 < max(small.probabilities) <= 0.8",
    "flag == true",
    "len(text) > 512 and len(open.p) > 3",
    "n > 1 / 3",
    "cut > 1",
]


@pytest.mark.parametrize("text", FITS)
def test_what_gives_one_bool_a_row_fits(text: str) -> None:
    assert str(typed(parse(text), TYPES)) == str(parse(text))
    assert mistakes(parse(text), TYPES) == []


REFUSED = {
    # Names.
    "max(small.probabilites) < 0.9": (
        "small.probabilites",
        "node 'small' gives no tensor 'probabilites' (did you mean 'probabilities'?)",
    ),
    "max(smal.probabilities) < 0.9": (
        "smal.probabilities",
        "no node before this one is called 'smal' (did you mean 'small'?)",
    ),
    "imag[0] < 1": ("imag", "'imag' is no input of the graph (did you mean 'image'?)"),
    "probabilities[0] < 1": (
        "probabilities",
        "'probabilities' is no input of the graph (did you mean 'small.probabilities'?)",
    ),
    "small < 1": ("small", "'small' is a node: say which of its tensors (as in small.probabilities)"),
    "image.x < 1": ("image.x", "'image' is an input of the graph, and one tensor (write image)"),
    "max < 1": ("max", "'max' is a function (write max(node.tensor))"),
    "mxa(n) < 1": ("mxa(n)", "'mxa' is no function (did you mean 'max'?)"),
    "params.tier == 'a'": (
        "params.tier",
        "no node before this one is called 'params' (did you mean 'parameters'?)",
    ),
    "turn-page.score/0 < 0.5": (
        "turn-page.score/0",
        "'turn-page.score/0' cannot be written as it is: it would be read as several words"
        ' (write edges["turn-page.score/0"])',
    ),
    # Kinds.
    "small.label == 3": (
        "small.label == 3",
        'small.label is BYTES[rows], a text, and 3 is a number: they cannot be compared (put it in quotes: "3")',
    ),
    'n == "3"': (
        'n == "3"',
        'n is INT64[rows], a number, and "3" is a text: they cannot be compared (write it without quotes)',
    ),
    "flag == 1": (
        "flag == 1",
        "flag is BOOL[rows], and 1 is a number: they cannot be compared (write flag, or not flag)",
    ),
    "n in ['a']": ("'a'", '"a" is a text, and n is INT64[rows], a number'),
    "flag in [true]": ("true", "true is a BOOL: a list holds texts or numbers (write x, or not x)"),
    "small.label < 'a'": ("small.label", "small.label is BYTES[rows], a text: '<' compares numbers only"),
    "text + 1 > 2": ("text", "text is BYTES[rows, 1], a text: '+' takes numbers"),
    "-flag": ("flag", "flag is BOOL[rows]: '-' takes numbers"),
    "not n": ("n", "n is INT64[rows], a number: `not` takes a BOOL"),
    "image and flag": ("image", "image is FP32[rows, 64], a number: `and` takes BOOLs"),
    "max(flag) > 1": ("flag", "flag is BOOL[rows]: max takes a number"),
    "any(n)": ("n", "n is INT64[rows], a number: any takes a BOOL (compare it, as in any(x > 0.5))"),
    # Dimensions.
    "small.probabilities < 0.9": (
        "small.probabilities < 0.9",
        "small.probabilities < 0.9 gives BOOL[rows, 10], more than one BOOL a row (put any( ) or all( ) around it)",
    ),
    "any.t < 1": (
        "any.t < 1",
        "any.t < 1 gives BOOL[rows, ...], more than one BOOL a row (put any( ) or all( ) around it)",
    ),
    "max(small.probabilities)": (
        "max(small.probabilities)",
        "max(small.probabilities) gives FP32[rows], where a condition gives a BOOL"
        ' (compare it, as in x > 0.5 or x == "cat")',
    ),
    "any(image < small.probabilities)": (
        "image < small.probabilities",
        "image < small.probabilities meets image, FP32[rows, 64], with small.probabilities, FP32[rows, 10]:"
        " their dimensions differ (reduce them, or choose columns)",
    ),
    "any(half.p > half.p[0])": (
        "half.p > half.p[0]",
        "half.p > half.p[0] meets half.p, FP32[rows, 2, 3], with half.p[0], FP32[rows, 3]:"
        " their dimensions differ (reduce them, or choose columns)",
    ),
    "any(image[1:4] > n > u[:2])": (
        "image[1:4] > n > u[:2]",
        "image[1:4] > n > u[:2] brings together BOOL[rows, 3] and BOOL[rows, 2]:"
        " their dimensions differ (reduce them, or choose columns)",
    ),
    "small.probabilities[10] > 1": (
        "small.probabilities[10]",
        "small.probabilities[10] reads column 10, where there are 10: 0 to 9",
    ),
    "small.probabilities[-11] > 1": (
        "small.probabilities[-11]",
        "small.probabilities[-11] reads column -11, where there are 10: 0 to 9",
    ),
    "max(u[1:4]) > 1": ("u[1:4]", "u[1:4] reads columns 1:4, where there are 3: 0 to 2"),
    "max(u[2:2]) > 1": ("u[2:2]", "u[2:2] reads columns 2:2, where there are 3: 0 to 2"),
    "max(open.p[2:1]) > 1": ("open.p[2:1]", "open.p[2:1] reads columns 2:1: there are none"),
    "max(open.p[-2:1]) > 1": (
        "open.p[-2:1]",
        "open.p[-2:1] reads columns -2:1, counted from the end and from the front, and how many there are is not known",
    ),
    "n[0] == 1": ("n", "n is INT64[rows], a number: there are no columns to choose from"),
    "u[0, 0] == 1": (
        "u[0, 0]",
        "u[0, 0] names 2, where there is 1 dimension behind the rows"
        " (the rows are never named: the first index is that of the column)",
    ),
    "any.t[0] > 1": ("any.t", "any.t is FP32[rows, ...]: it is not known whether it has these dimensions"),
    "max(half.empty) > 1": ("half.empty", "half.empty is FP32[rows, 0]: a row has no element"),
    # Literals.
    "u[0] < 300": ("300", "300 is past what UINT8 holds, 0 to 255"),
    "u[0] in [1, -1]": ("-1", "-1 is past what UINT8 holds, 0 to 255"),
    "n == 0.5": ("0.5", "0.5 is never an INT64"),
    "image[0] < 1e39": ("1e39", "1e+39 does not fit into FP32"),
    "n / 0 > 1": ("0", "0 is what nothing can be divided by"),
    "n > 1e308 * 10": ("1e308 * 10", "1e+308 * 10 is no finite number"),
    "1 < 2": ("1 < 2", "1 < 2 names no tensor and no parameter: it is the same for every row"),
    # Parameters.
    "parameters.a == parameters.b and n > 1": (
        "parameters.a",
        "parameters.a may be a text, a number or a BOOL: nothing here says which"
        " (compare it with a literal or a tensor)",
    ),
    "parameters.a and parameters.a == 'x'": (
        "parameters.a == 'x'",
        'parameters.a is a BOOL, and "x" is a text: they cannot be compared (write parameters.a, or not parameters.a)',
    ),
    "parameters.a in [1] and n > len(parameters.a)": (
        "parameters.a",
        "parameters.a is taken for a text here, and for a number elsewhere",
    ),
    "max(parameters.a) > 1": ("parameters.a", "parameters.a is a number: max takes what has rows"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_fit_is_refused_at_its_place(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        typed(parse(text), TYPES)
    first = caught.value.mistakes[0]
    where, told = REFUSED[text]
    assert str(first) == told
    assert text[first.start : first.end] == where


def test_every_mistake_is_told_at_once_and_each_once() -> None:
    text = "max(small.probabilites) < max(smal.p) and small.label < 1 and small.probabilites[0] > 1"
    found = mistakes(parse(text), TYPES)
    assert [text[one.start : one.end] for one in found] == [
        "small.probabilites",
        "smal.p",
        "small.label < 1",
        "small.probabilites",
    ]


def test_nothing_is_said_of_what_hangs_on_a_node_in_doubt() -> None:
    text = "max(gone.p) < parameters.least and max(gone.p) == 'x' and wrong.p > 1"
    assert [one.text for one in mistakes(parse(text), TYPES, doubtful={"gone"})] == [
        "no node before this one is called 'wrong'"
    ]
    assert mistakes(parse("max(gone.p) < 1"), TYPES, doubtful={"gone"}) == []


def test_hints_are_made_by_whoever_counts_them() -> None:
    (mistake,) = mistakes(parse("imag[0] < 1"), TYPES, near=lambda word, known: f"{word} of {sorted(known)[0]}")
    assert mistake.hint == "imag of cut"


def test_a_condition_tells_what_it_reads() -> None:
    condition = typed(parse("parameters.x < n and parameters.t == 'a' and parameters.b and n > u[0]"), TYPES)
    assert condition.edges == ("n", "u")
    assert condition.parameters == {"x": "number", "t": "text", "b": "BOOL"}


def test_a_tensor_without_rows_has_no_row_to_decide() -> None:
    (mistake,) = mistakes(parse("x > 1"), {"x": TensorSpec("FP32", ())})
    assert mistake.text == "x is FP32[], which has no rows"
