"""Conditions, splits, shadows, joins and expansions: which rows are where is known before anything runs."""

from __future__ import annotations

import pytest

from mesh.topology import Graph, GraphNode
from mesh.topology.graph import Join, RowsOf, Share
from tests.unit.topology.given import NODES, compiled, told

NAME_RULE = "lower case letters, digits, '_' and '-', a letter first, at most 63"
REACH = "name a branch that every row reaches, or give the aggregate a default"
OUTPUT = "join it with a branch that every row reaches, as by nodes.aggregate:FirstOf, or with a default"
SAME_ROWS = "a node takes edges of the same rows: gather the one, or expand the other"
ON_A_BRANCH = "an aggregate joins what its branches give: put it on a branch"
GATHER = "gather them by nodes.aggregate:Gather"


def node(name: str, uses: str, inputs: str, *more: str) -> str:
    """Four lines: the second is its class, the third its inputs, the fourth what else is said."""
    return f"  {name}:\n    uses: {NODES}:{uses}\n    inputs: {inputs}\n" + "".join(f"    {line}\n" for line in more)


def flow(*nodes: str, outputs: str = "x: answer.label") -> str:
    """A topology of these nodes, which begin in line 6."""
    head = "mesh: v1\nname: flow\ninputs:\n  image: {datatype: FP32, shape: [-1, 64]}\nnodes:\n"
    return f"{head}{''.join(nodes)}outputs: {{{outputs}}}\n"


SMALL = node("small", "Model", "{X: image}")
ANSWER = node("answer", "AnyOf", "[large, small]")
LINES = node("lines", "Lines", "{x: image}")


def large(*more: str) -> str:
    return node("large", "Model", "{X: image}", *more)


def beside_small(*more: str, answer: str = ANSWER) -> str:
    """A topology of `small`, of `large`, whose fourth line is line 12, and of an answer that needs one of them."""
    return flow(SMALL, large(*more), answer)


def graph(text: str) -> Graph:
    return compiled(text).graph


# Conditions.


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ('""', "12:11: 'when' may not be empty"),
        ("5", "12:11: 'when' has to be a text, not 5 (put it in quotes)"),
        (f'"{"x" * 1025}"', "12:11: 'when' may have at most 1024 characters, not 1025"),
        (
            '"max(small.p) <"',
            "12:26: something is missing after '<'\n    max(small.p) <\n                  ^",
        ),
        (
            "max(small.q) < 0.9",
            "12:15: node 'small' gives no tensor 'q' (there is: label, p)\n    max(small.q) < 0.9\n        ^^^^^^^",
        ),
        (
            "max(smal.p) < 0.9",
            "12:15: no node before this one is called 'smal' (did you mean 'small'?)\n"
            "    max(smal.p) < 0.9\n        ^^^^^^",
        ),
        (
            "max(small.p)",
            "12:11: max(small.p) gives FP32[rows], where a condition gives a BOOL "
            '(compare it, as in x > 0.5 or x == "cat")\n    max(small.p)\n    ^^^^^^^^^^^^',
        ),
    ],
)
def test_a_condition_that_cannot_be_is_told_with_a_mark_under_the_mistake(when: str, problem: str) -> None:
    assert told(beside_small(f"when: {when}")) == [problem]


def test_every_mistake_of_a_condition_is_told_at_once() -> None:
    assert [
        problem.partition("\n")[0] for problem in told(beside_small("when: max(small.q) < 0.9 and foo(small.p) > 1"))
    ] == [
        "12:15: node 'small' gives no tensor 'q' (there is: label, p)",
        "12:34: 'foo' is no function (there is: max, min, mean, sum, argmax, any, all, abs, len)",
    ]


def test_a_condition_of_what_comes_later_is_a_cycle() -> None:
    text = flow(SMALL, large("when: max(answer.label) < 1"), ANSWER)
    assert told(text) == ["9:3: a cycle: large -> answer -> large"]


def test_a_condition_is_kept_in_its_canonical_form_with_the_edges_that_it_reads() -> None:
    made = graph(beside_small('when: "max(  small.p )<0.9"')).node("large")
    assert (made.when, made.reads) == ("max(small.p) < 0.9", ("small.p",))
    assert made.edges == ["image", "small.p"]
    assert made.after == ["small"]


def test_a_condition_of_a_node_that_is_wrong_is_not_blamed_for_it() -> None:
    for uses, more in (("Nobody", []), ("Model", ["with: {add: x}"])):
        wrong = node("small", uses, "{X: image}", *more)
        assert len(told(flow(wrong, large("when: max(small.q) < 1"), ANSWER))) == 1


def test_the_condition_of_a_node_that_is_wrong_is_looked_at_all_the_same() -> None:
    text = flow(SMALL, node("large", "Nobody", "{X: image}", "when: max(small.q) < 1"), ANSWER)
    assert [problem.partition(":")[0] for problem in told(text)] == ["10", "12"]


def test_branches_that_wait_for_each_other_are_told_as_a_cycle_alone() -> None:
    text = flow(node("small", "Model", "{X: large.p}"), node("large", "Settings", "{x: small.p}"), ANSWER)
    assert told(text) == ["6:3: a cycle: small -> large -> small"]


# Rows without an answer.


@pytest.mark.parametrize(
    ("nodes", "outputs", "problem"),
    [
        (
            [SMALL, large("when: max(small.p) < 0.9"), ANSWER],
            "x: answer.label, y: large.label",
            f"16:31: rows could end without 'y': 'large' runs when max(small.p) < 0.9 ({OUTPUT})",
        ),
        (
            [SMALL, large("when: max(small.p) < 0.9"), node("answer", "Join", "[large, small]")],
            "x: answer.label",
            f"16:14: rows could end without 'x': 'large' runs when max(small.p) < 0.9 ({OUTPUT})",
        ),
        (
            [
                SMALL,
                large("when: max(small.p) < 0.9"),
                node("answer", "Named", "[large, small]", "with: {needs: [large]}"),
            ],
            "x: answer.label",
            "15:5: rows could end without an answer at 'answer': branch 'large', which it needs, has them only where "
            f"('large' runs when max(small.p) < 0.9) ({REACH})",
        ),
        (
            [
                node("first", "Model", "{X: image}"),
                node("small", "Model", "{X: image}", "when: max(first.p) < 0.5"),
                large("when: max(first.p) > 0.5"),
                ANSWER,
            ],
            "x: answer.label",
            "19:5: rows could end without an answer at 'answer': no branch is sure to have them, "
            f"as where max(first.p) == 0.5 ({REACH})",
        ),
        (
            [
                node("first", "Model", "{X: image}"),
                node("small", "Model", "{X: image}", "when: max(first.p) < 0.5"),
                node("large", "Model", "{X: image}", "when: max(first.p) >= 0.5"),
                ANSWER,
            ],
            "x: answer.label",
            "19:5: rows could end without an answer at 'answer': no branch is sure to have them, "
            f"as where max(first.p) is NaN ({REACH})",
        ),
        (
            [
                node("small", "Model", "{X: image}", "split: {group: g, weight: 50}"),
                node("third", "Model", "{X: image}", "split: {group: g, weight: 30}"),
                large("split: {group: g, weight: 20}"),
                ANSWER,
            ],
            "x: answer.label, y: third.label",
            "20:5: rows could end without an answer at 'answer': no branch is sure to have them "
            f"('large' has a share of the rows, 'small' has a share of the rows) ({REACH})",
        ),
    ],
)
def test_rows_that_could_end_without_an_answer_are_told(nodes: list[str], outputs: str, problem: str) -> None:
    assert problem in told(flow(*nodes, outputs=outputs))


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        node("answer", "Named", "[large, small]", "with: {needs: [small]}"),
        node("answer", "Named", "[large, small]", "with: {needs: []}"),
    ],
)
def test_an_aggregate_that_can_do_without_a_branch_answers_every_row(answer: str) -> None:
    made = graph(beside_small("when: max(small.p) < 0.9", answer=answer))
    assert made.node("answer").rows_of == ()


def test_branches_whose_conditions_leave_no_row_out_answer_every_row() -> None:
    text = flow(
        node("first", "Model", "{X: image}"),
        node("small", "Model", "{X: image}", "when: first.label < 5"),
        large("when: first.label >= 5"),
        ANSWER,
    )
    assert told(text) == []


def test_a_condition_further_out_thins_what_is_joined_and_is_met_again_where_all_rows_are() -> None:
    text = flow(
        node("first", "Model", "{X: image}"),
        node("outer", "Settings", "{x: image}", "when: first.label < 5"),
        node("small", "Model", "{X: outer.x}"),
        node("large", "Model", "{X: outer.x}", "when: max(small.p) < 0.9"),
        node("inner", "AnyOf", "[large, small]"),
        node("answer", "AnyOf", "[inner, first]"),
    )
    made = graph(text)
    assert made.node("inner").rows_of == (RowsOf("outer"),)
    assert made.node("inner").after == ["large", "small", "outer"]
    assert made.node("answer").rows_of == ()


# Splits.


@pytest.mark.parametrize(
    ("small", "large_", "problems"),
    [
        ("", "{group: g, weight: 50}", ["12:31: the weights of split 'g' sum to 50, not to 100: 50"]),
        (
            "{group: g, weight: 50}",
            "{group: g, weight: 40}",
            ["13:31: the weights of split 'g' sum to 90, not to 100: 50, 40"],
        ),
        (
            "{group: g, weight: 50, by: parameters.user}",
            "{group: g, weight: 50, by: parameters.usr}",
            ["13:39: split 'g' goes by 'parameters.user' already: what decides is the same for all of its arms"],
        ),
        (
            "{group: g, weight: 50, by: imag}",
            "{group: g, weight: 50}",
            ["9:39: 'imag' is no edge, and no parameters.NAME (did you mean 'image'?)"],
        ),
        ("", "5", ["12:12: 'split' has to be a mapping, not 5"]),
        (
            "{group: G, weight: 0}",
            "{weight: 101, by: 5}",
            [
                f"9:20: 'G' is no name: {NAME_RULE}",
                "9:31: 'split.weight' has to be above 0, not 0",
                "13:5: 'group' is missing",
                "13:21: 'split.weight' has to be at most 100, not 101",
                "13:30: 'split.by' has to be a text, not 5 (put it in quotes)",
            ],
        ),
        ("", "{group: g, wieght: 50}", ["12:23: 'wieght' is not taken here (did you mean 'weight'?)"]),
        ("", "{group: g, weight: 100, by: ''}", ["12:40: 'split.by' may not be empty"]),
    ],
)
def test_a_split_that_is_not_whole_is_told(small: str, large_: str, problems: list[str]) -> None:
    arm = node("small", "Model", "{X: image}", f"split: {small}") if small else SMALL
    assert told(flow(arm, large(f"split: {large_}"), ANSWER)) == problems


def test_a_split_is_not_told_to_lack_the_weight_of_an_arm_that_is_not_understood() -> None:
    arm = node("small", "Model", "{X: image}", "split: {group: g, weight: x}")
    text = flow(arm, large("split: {group: g, weight: 50}"), ANSWER)
    assert told(text) == ["9:31: 'split.weight' has to be a number, not 'x'"]


def test_arms_that_take_different_inputs_have_to_say_what_decides() -> None:
    nodes = [
        node("other", "Settings", "{x: image}"),
        node("small", "Model", "{X: image}", "split: {group: g, weight: 50}"),
        node("large", "Model", "{X: other.x}", "split: {group: g, weight: 50}"),
        ANSWER,
    ]
    assert told(flow(*nodes)) == [
        "12:5: the arms of split 'g' take different inputs "
        "(say what decides, as in by: parameters.user, or by: node.tensor)"
    ]
    said = [part.replace("weight: 50}", "weight: 50, by: other.x}") for part in nodes]
    assert graph(flow(*said)).node("small").reads == ("other.x",)


def test_a_split_that_goes_by_a_node_that_is_wrong_is_not_blamed_for_it() -> None:
    wrong = node("other", "Nobody", "{x: image}")
    arms = [
        node("small", "Model", "{X: image}", "split: {group: g, weight: 50, by: other.x}"),
        large("split: {group: g, weight: 50}"),
    ]
    assert len(told(flow(wrong, *arms, ANSWER))) == 1


def test_an_arm_that_nothing_feeds_is_told_as_such() -> None:
    for inputs in ("{}", "[]"):
        text = flow(SMALL, node("large", "Model", inputs, "split: {group: g, weight: 100}"), ANSWER)
        assert told(text) == ["11:5: node 'large' takes nothing (name what feeds it)"]


def test_the_arms_of_a_split_share_all_rows() -> None:
    made = graph(
        flow(
            node("small", "Model", "{X: image}", "split: {group: g, weight: 33.3333333}"),
            node("third", "Model", "{X: image}", "split: {group: g, weight: 33.3333333}"),
            large("split: {group: g, weight: 33.3333333, by: parameters.user}"),
            node("answer", "AnyOf", "[large, small, third]"),
        )
    )
    shares = [made.node(name).share for name in ("small", "third", "large")]
    assert [(one.group, one.by) for one in shares if one] == [("g", ("parameters.user",))] * 3
    bounds = [(one.begin, one.end) for one in shares if one]
    assert bounds[0][0] == 0.0
    assert bounds[2][1] == 1.0
    assert bounds[0][1] == bounds[1][0]
    assert bounds[1][1] == bounds[2][0]


def test_the_content_of_its_inputs_decides_if_nothing_else_is_said() -> None:
    arms = [node(name, "Model", "{X: image}", "split: {group: g, weight: 50}") for name in ("small", "large")]
    made = graph(flow(*arms, ANSWER))
    assert made.node("small").share == Share(group="g", begin=0.0, end=0.5, by=("image",))
    assert made.node("large").share == Share(group="g", begin=0.5, end=1.0, by=("image",))


# Shadows.


@pytest.mark.parametrize(
    ("nodes", "outputs", "problems"),
    [
        ([SMALL, large("shadow: smal")], "x: small.label", ["12:13: no node is called 'smal' (did you mean 'small'?)"]),
        ([SMALL, large("shadow: 5")], "x: small.label", ["12:13: 'shadow' has to be a text, not 5 (put it in quotes)"]),
        ([SMALL, large("shadow: large")], "x: small.label", ["9:3: a cycle: large -> large"]),
        (
            [SMALL, large("shadow: small"), node("third", "Model", "{X: image}", "shadow: large")],
            "x: small.label",
            ["16:13: 'large' is a shadow itself: it answers nobody"],
        ),
        (
            [SMALL, large("shadow: small")],
            "x: small.label, y: large.label",
            ["12:5: node 'large' is a shadow, and 'y' takes from it"],
        ),
        (
            [SMALL, large("shadow: small"), ANSWER],
            "x: answer.label",
            ["12:5: node 'large' is a shadow, and 'answer' takes from it"],
        ),
        (
            [SMALL, node("large", "Settings", "{x: image}", "shadow: small")],
            "x: small.label",
            [
                "12:13: 'large' gives 'x' as FP32[rows, 64], and 'small' no such tensor "
                "(a shadow is compared tensor by tensor)"
            ],
        ),
        (
            [node("small", "Settings", "{x: image}"), node("large", "Lines", "{x: image}", "shadow: small")],
            "x: small.x",
            ["12:13: a node that expands cannot be compared row by row"],
        ),
        (
            [
                node("small", "Settings", "{x: image}"),
                LINES,
                node("large", "Settings", "{x: lines.x}", "shadow: small"),
                node("all", "Collect", "[lines]"),
            ],
            "x: small.x, y: all.label",
            ["15:13: 'large' has one row for each that 'lines' makes, and 'small' one row for each of the request"],
        ),
        (
            [node("small", "Settings", "{x: image}"), node("large", "Transpose", "{x: image}", "shadow: small")],
            "x: small.x",
            [
                "11:17: 'image' does not fit tensor 'x' of node 'large': "
                "it is FP32[rows, 64] where FP32[rows, n, m] is needed"
            ],
        ),
    ],
)
def test_a_shadow_that_cannot_be_compared_is_told(nodes: list[str], outputs: str, problems: list[str]) -> None:
    assert told(flow(*nodes, outputs=outputs)) == problems


def test_a_shadow_is_not_blamed_for_a_node_that_is_wrong() -> None:
    text = flow(node("small", "Nobody", "{X: image}"), large("shadow: small"), outputs="x: small.label")
    assert len(told(text)) == 1


def test_a_shadow_leads_to_no_output_and_comes_after_what_it_is_compared_with() -> None:
    made = graph(flow(SMALL, large("shadow: small"), outputs="x: small.label")).node("large")
    assert made.shadows == "small"
    assert made.compared == ["small.label", "small.p"]
    assert made.after == ["small"]


# Joins.


@pytest.mark.parametrize(
    ("uses", "more", "problems"),
    [
        ("AnyOf", ["join: some"], ["15:11: 'join' has to be 'all' or 'first', not 'some'"]),
        ("AnyOf", ["join: 5"], ["15:11: 'join' has to be all, first, or a mapping such as {quorum: 2}, not 5"]),
        ("AnyOf", ["join: {quorum: 3}"], ["15:20: a quorum of 3, and there are 2 branches"]),
        ("AnyOf", ["join: {quorum: 0}"], ["15:20: 'join.quorum' has to be at least 1, not 0"]),
        ("AnyOf", ["join: {quorm: 1}"], ["15:12: 'quorm' is not taken here (did you mean 'quorum'?)"]),
        ("AnyOf", ["join: {deadline: 0s}"], ["15:22: 'join.deadline' has to be above 0s, not '0s'"]),
        (
            "AnyOf",
            ["join: {required: [lrge], timeouts: {smal: 5s}}"],
            [
                "15:23: 'lrge' is no branch of 'answer' (did you mean 'large'?)",
                "15:41: 'smal' is no branch of 'answer' (did you mean 'small'?)",
            ],
        ),
        (
            "Join",
            ["join: first"],
            [
                "15:5: 'answer' needs every branch: it cannot be joined from some of them "
                "(one that can do without is nodes.aggregate:FirstOf)"
            ],
        ),
        (
            "Named",
            ["with: {needs: [large, small]}", "join: {quorum: 1, required: [small]}"],
            [
                "16:5: 'answer' needs branch 'large', which is not required (write required: [small, large])",
            ],
        ),
        ("AnyOf", ["when: max(small.p) < 1"], [f"15:5: {ON_A_BRANCH}"]),
        ("AnyOf", ["split: {group: g, weight: 100}"], [f"15:5: {ON_A_BRANCH}"]),
        ("AnyOf", ["shadow: small"], [f"15:5: {ON_A_BRANCH}"]),
        ("OddNeeds", [], ["13:11: OddNeeds.needs has to be every, any, none or names of branches, not 'some'"]),
        ("NoNeeds", [], ["13:11: NoNeeds cannot tell which branches it needs: LookupError: needs"]),
        (
            "Named",
            ["with: {needs: [nobody]}"],
            ["13:11: Named needs branch 'nobody'; it is given large, small"],
        ),
    ],
)
def test_a_join_that_cannot_be_is_told(uses: str, more: list[str], problems: list[str]) -> None:
    assert told(flow(SMALL, large(), node("answer", uses, "[large, small]", *more))) == problems


def test_a_node_that_joins_nothing_cannot_say_how() -> None:
    text = beside_small("join: first")
    assert told(text) == ["12:5: node 'large' is no aggregate: there is nothing to join"]


@pytest.mark.parametrize(
    ("join", "made"),
    [
        ("all", None),
        ("first", Join(quorum=1)),
        ("{quorum: 2}", Join(quorum=2)),
        ("{quorum: 1, deadline: 1s}", Join(quorum=1, waits=True, deadline_s=1.0)),
        ("{deadline: 1s}", Join(quorum=1, waits=True, deadline_s=1.0)),
        ("{required: [small]}", Join(quorum=1, required=("small",), waits=True)),
        ("{quorum: 2, required: [small]}", Join(quorum=2, required=("small",))),
        (
            "{timeouts: {large: 5ms}}",
            Join(quorum=2, required=("large", "small"), waits=True, timeouts_s={"large": 0.005}),
        ),
    ],
)
def test_a_join_is_read_as_it_is_written(join: str, made: Join | None) -> None:
    text = flow(SMALL, large(), node("answer", "AnyOf", "[large, small]", f"join: {join}"))
    assert graph(text).node("answer").join == made


# Expansions.


def expansions(count: int) -> list[str]:
    return [node(f"l{index}", "Lines", f"{{x: {f'l{index - 1}.x' if index else 'image'}}}") for index in range(count)]


@pytest.mark.parametrize(
    ("nodes", "outputs", "problems"),
    [
        (
            [LINES],
            "x: lines.x",
            [
                "9:14: 'lines.x' has one row for each that 'lines' makes, where an output has one a row of the request "
                f"({GATHER})"
            ],
        ),
        (
            [LINES, node("both", "Add", "{a: image, b: lines.x}")],
            "x: both.sum",
            [
                "11:27: 'lines.x' has one row for each that 'lines' makes, and 'image' one row for each of the request "
                f"({SAME_ROWS})"
            ],
        ),
        (
            [LINES, node("it", "Model", "{X: image}", "when: max(lines.x) > 1"), node("all", "Collect", "[lines]")],
            "x: it.label, y: all.label",
            [
                "12:11: 'lines.x' has one row for each that 'lines' makes, and 'image' one row for each of the request "
                f"({SAME_ROWS})"
            ],
        ),
        (
            [LINES, SMALL, node("answer", "AnyOf", "[lines, small]")],
            "x: answer.label",
            [
                "14:5: branch 'small' has one row for each of the request, and 'lines' one row for each that 'lines' "
                "makes (gather the one before they are joined)"
            ],
        ),
        (
            [SMALL, node("answer", "Collect", "[small]")],
            "x: answer.label",
            ["11:5: 'answer' gathers rows that a node made of others, and no node before it expands"],
        ),
        (
            [*expansions(8), node("answer", "Collect", "[l7]")],
            "x: answer.label",
            [
                "27:3: expansions within expansions, more than 7",
                "33:14: 'answer.label' has one row for each that 'l6' makes, where an output has one a row of the "
                f"request ({GATHER})",
            ],
        ),
    ],
)
def test_rows_that_do_not_belong_together_are_told(nodes: list[str], outputs: str, problems: list[str]) -> None:
    assert told(flow(*nodes, outputs=outputs)) == problems


def test_rows_that_do_not_belong_together_are_told_once_and_not_by_all_that_follows() -> None:
    text = flow(LINES, node("both", "Add", "{a: image, b: lines.x}"), SMALL, node("answer", "AnyOf", "[both, small]"))
    (problem,) = told(text)
    assert problem.startswith("11:27: 'lines.x' has one row for each that 'lines' makes")


def test_rows_that_a_node_made_are_gathered_where_they_came_from() -> None:
    made = graph(flow(LINES, node("answer", "Collect", "[lines]")))
    assert made.node("lines").expands
    assert made.node("answer").rows_of == (RowsOf("lines"),)


def test_branches_of_rows_that_a_node_made_are_joined_by_those_that_it_gave() -> None:
    made = graph(
        flow(
            LINES,
            node("small", "Model", "{X: lines.x}"),
            node("large", "Model", "{X: lines.x}", "when: max(small.p) < 0.9"),
            node("surest", "AnyOf", "[large, small]"),
            node("answer", "Collect", "[surest]"),
        )
    )
    assert made.node("surest").rows_of == (RowsOf("lines", given=True),)
    assert made.node("answer").rows_of == (RowsOf("lines"),)


def test_a_node_without_flow_says_nothing_of_it() -> None:
    made = graph(beside_small()).node("large")
    plain = GraphNode(
        name="large", kind="predict", uses="", arguments={}, inputs={}, takes={}, gives={}, version="1"
    )  # fmt: skip
    for name in ("when", "reads", "share", "expands", "join", "rows_of", "shadows"):
        assert getattr(made, name) == getattr(plain, name)
