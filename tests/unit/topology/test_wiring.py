"""Every reference leads somewhere, none in a circle, and nothing leads nowhere."""

from __future__ import annotations

import pytest

from tests.unit.topology.given import GOOD, NODES, changed, compiled, one_node, told

LARGE = f"  large:\n    uses: {NODES}:Model\n    with: {{add: 100}}\n    inputs: {{X: scale.x}}\n"
NODES_HERE = "there is: scale, small, large, answer"
NO_OUTPUT = "leads to no output (name a tensor of it under `outputs`, or as an input of another node, or take it out)"


def chain(*feeds: str) -> str:
    """A topology of nodes n0, n1, ... from line 6 on, three lines each; node i is fed by what the i-th text says."""
    nodes = "".join(
        f"  n{index}:\n    uses: {NODES}:Settings\n    inputs: {{x: {feed}}}\n" for index, feed in enumerate(feeds)
    )
    head = "mesh: v1\nname: chain\ninputs:\n  image: {datatype: FP32, shape: [-1, 64]}\nnodes:\n"
    return f"{head}{nodes}outputs: {{x: n{len(feeds) - 1}.x}}\n"


@pytest.mark.parametrize(
    ("edge", "problem"),
    [
        ("imgae", "'imgae' is no input of the graph (did you mean 'image'?)"),
        ("zzz", "'zzz' is no input of the graph (there is: image)"),
        ("''", "'' is no input of the graph (there is: image)"),
        (".x", "'.x' is no input of the graph (there is: image)"),
        ("small", "'small' is a node: say which of its tensors, as in small.TENSOR"),
        ("image.x", "'image.x' does not exist: 'image' is an input of the graph, and one tensor (write image)"),
        ("zzz.x", f"no node is called 'zzz' ({NODES_HERE})"),
        ("smal.p", "no node is called 'smal' (did you mean 'small'?)"),
    ],
)
def test_an_edge_that_leads_nowhere_is_told(edge: str, problem: str) -> None:
    assert told(changed("{x: image}", f"{{x: {edge}}}")) == [f"9:17: {problem}"]


@pytest.mark.parametrize(
    ("edge", "problem"),
    [
        ("image", "'image' is an input of the graph: an output comes from a node"),
        ("image.x", "'image.x' does not exist: 'image' is an input of the graph, and one tensor (write image)"),
        ("answer", "'answer' is a node: say which of its tensors, as in answer.TENSOR"),
        ("zzz", f"'zzz' has to be node.tensor ({NODES_HERE})"),
        ("answr", "'answr' has to be node.tensor (did you mean 'answer'?)"),
        ("''", f"'' has to be node.tensor ({NODES_HERE})"),
        (".label", f"'.label' has to be node.tensor ({NODES_HERE})"),
        ("answr.label", "no node is called 'answr' (did you mean 'answer'?)"),
        ("answer.lable", "node 'answer' gives no tensor 'lable' (did you mean 'answer.label'?)"),
        ("answer.", "node 'answer' gives no tensor '' (there is: label, sizes)"),
    ],
)
def test_an_output_that_leads_nowhere_is_told(edge: str, problem: str) -> None:
    assert told(changed("label: answer.label", f"label: {edge}")) == [f"24:10: {problem}"]


@pytest.mark.parametrize(
    ("branches", "problem"),
    [
        ("[small, lrge]", "22:21: no node is called 'lrge' (did you mean 'large'?)"),
        ("[small, zzz]", f"22:21: no node is called 'zzz' ({NODES_HERE})"),
        ("[small, '']", f"22:21: no node is called '' ({NODES_HERE})"),
        ("[small, small]", "22:21: branch 'small' comes twice"),
        ("[small, large.p]", "22:21: 'large.p' is one tensor: an aggregate joins whole nodes (write large)"),
        ("[small, image]", "22:21: 'image' is an input of the graph: a list names nodes, for an aggregate to join"),
        ("[]", "22:5: node 'answer' takes nothing (name what feeds it)"),
        ("{}", "22:5: node 'answer' takes nothing (name what feeds it)"),
    ],
)
def test_a_branch_that_leads_nowhere_is_told(branches: str, problem: str) -> None:
    assert told(changed("[small, large]", branches)) == [problem]


@pytest.mark.parametrize("inputs", ["{}", "[]"])
def test_a_node_that_nothing_feeds_is_told_once(inputs: str) -> None:
    assert told(changed("{x: image}", inputs)) == ["9:5: node 'scale' takes nothing (name what feeds it)"]


@pytest.mark.parametrize(
    ("edge", "problem"),
    [
        ("scale.x", "6:3: a cycle: scale -> scale"),
        ("small.p", "6:3: a cycle: scale -> small -> scale"),
        ("answer.label", "6:3: a cycle: scale -> small -> answer -> scale"),
    ],
)
def test_a_cycle_is_told_once_in_the_direction_of_the_flow(edge: str, problem: str) -> None:
    assert told(changed("{x: image}", f"{{x: {edge}}}")) == [problem]


def test_a_cycle_is_told_at_its_first_node_in_the_file_and_what_is_behind_it_is_not() -> None:
    assert told(chain("image", "n4.x", "n1.x", "n0.x", "n2.x", "n4.x")) == ["9:3: a cycle: n1 -> n2 -> n4 -> n1"]


def test_every_cycle_that_shares_no_node_is_told() -> None:
    assert told(chain("n1.x", "n0.x", "n3.x", "n2.x", "n4.x")) == [
        "6:3: a cycle: n0 -> n1 -> n0",
        "12:3: a cycle: n2 -> n3 -> n2",
        "18:3: a cycle: n4 -> n4",
    ]


def test_a_long_cycle_is_told_in_short() -> None:
    last = 29
    text = chain(f"n{last}.x", *(f"n{index}.x" for index in range(last)))
    way = " -> ".join(f"n{index}" for index in range(20))
    assert told(text) == [f"6:3: a cycle: {way} -> ... -> n{last} -> n0"]
    text = chain("n20.x", *(f"n{index}.x" for index in range(20)))
    assert told(text) == [f"6:3: a cycle: {' -> '.join(f'n{index}' for index in range(21))} -> n0"]


def test_a_node_that_leads_to_no_output_is_told() -> None:
    assert told(changed("[small, large]", "[small]")) == [f"16:3: node 'large' {NO_OUTPUT}"]
    assert told(changed("  label: answer.label\n", "")) == [
        f"16:3: node 'large' {NO_OUTPUT}",
        f"20:3: node 'answer' {NO_OUTPUT}",
    ]


def test_an_input_that_feeds_no_node_is_told() -> None:
    text = changed("inputs:\n  image", "inputs:\n  spare: {datatype: FP32, shape: [-1]}\n  image")
    assert told(text) == ["4:3: input 'spare' feeds no node"]


def test_what_is_needed_is_told_only_where_the_wiring_is_as_it_was_meant() -> None:
    spare = changed("inputs:\n  image", "inputs:\n  spare: {datatype: FP32, shape: [-1]}\n  image")
    unused = "4:3: input 'spare' feeds no node"
    for old, new, problem in [
        ("[small, large]", "[small, lrge]", "23:21: no node is called 'lrge' (did you mean 'large'?)"),
        ("answer.label", "answr.label", "25:10: no node is called 'answr' (did you mean 'answer'?)"),
        ("{x: image}", "{x: image, y: image}", "10:24: node 'scale' takes no tensor 'y' (there is: x)"),
        (
            "[small, large]",
            "5",
            "23:13: 'inputs' has to be a mapping {tensor: node.tensor}, or for an aggregate a list of nodes, not 5",
        ),
    ]:
        assert told(changed(old, new, spare)) == [problem]
    assert told(changed("divide_by: 16", "divide_by: x", spare)) == [
        unused,
        "9:23: 'divide_by' has to be a number, not 'x'",
    ]
    text = changed("mesh: v1", "mesh: v1\nlimits: {max_in_flight: 0}", spare)
    assert told(text) == [
        "2:25: 'limits.max_in_flight' has to be at least 1, not 0",
        "5:3: input 'spare' feeds no node",
    ]


def test_references_into_a_section_that_was_not_understood_are_not_blamed() -> None:
    assert told(changed("  image: {datatype: FP32, shape: [-1, 64]}\n", "")) == [
        "3:1: 'inputs' has to be a mapping with at least one entry"
    ]
    assert told(changed("nodes:\n  scale:", "noodles:\n  scale:")) == [
        "5:1: 'noodles' is no part of a topology (did you mean 'nodes'?)"
    ]
    assert told(changed("datatype: FP32", "datatype: FP31")) == [
        "4:21: 'datatype': 'FP31' is no datatype; did you mean 'FP32'?"
    ]


def test_nodes_may_stand_in_any_order_and_come_in_that_of_the_flow() -> None:
    text = changed(LARGE, "").replace("  scale:\n", f"{LARGE}  scale:\n")
    assert [node.name for node in compiled(text).graph.nodes] == ["scale", "large", "small", "answer"]
    assert [node.name for node in compiled(GOOD).graph.nodes] == ["scale", "small", "large", "answer"]


def test_a_node_may_be_fed_twice_by_one_and_by_an_input_besides() -> None:
    node = compiled(one_node("Add", tensor="a").replace("{a: image}", "{a: image, b: image}").replace("it.x", "it.sum"))
    assert node.graph.node("it").edges == ["image"]
    assert node.graph.node("it").after == []
