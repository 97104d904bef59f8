"""Nodes against what feeds them: tensors by name, types by edge, what an aggregate joins, what each says of itself."""

from __future__ import annotations

import pytest

from mesh.signature import TensorSpec
from tests.unit.topology.given import GOOD, NODES, changed, compiled, one_node, told

LARGE = f"  large:\n    uses: {NODES}:Model\n    with: {{add: 100}}\n    inputs: {{X: scale.x}}\n"
ANSWER = f"  answer:\n    uses: {NODES}:Join\n    inputs: [small, large]\n"
DATATYPES = "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BYTES, BF16"


def large(uses: str, inputs: str) -> str:
    """The good topology with another node in the place of `large`, its inputs in line 18."""
    return changed(LARGE, f"  large:\n    uses: {NODES}:{uses}\n    inputs: {inputs}\n")


def spec(text: str) -> TensorSpec:
    datatype, _, shape = text.removesuffix("]").partition("[")
    return TensorSpec(datatype, tuple(int(size) if size.isdigit() else size for size in shape.split(", ")))


@pytest.mark.parametrize(
    ("uses", "inputs", "problems"),
    [
        (
            "Model",
            "{Y: scale.x}",
            [
                "18:5: node 'large' needs tensor 'X', FP32[rows, 64] (write inputs: {X: node.tensor})",
                "18:14: node 'large' takes no tensor 'Y' (there is: X)",
            ],
        ),
        ("Model", "{X: scale.x, y: image}", ["18:26: node 'large' takes no tensor 'y' (there is: X)"]),
        ("Add", "{a: image}", ["18:5: node 'large' needs tensor 'b', FP32[rows, n] (write inputs: {b: node.tensor})"]),
        (
            "Many",
            "{frst_image: image}",
            [
                "18:5: node 'large' needs tensor 'second_image', FP32[rows] "
                "(write inputs: {second_image: node.tensor})",
                "18:5: node 'large' needs tensor 'third', INT64[rows] (write inputs: {third: node.tensor})",
                "18:14: node 'large' takes no tensor 'frst_image' (did you mean 'first_image'?)",
            ],
        ),
        ("Model", "{X: scale.y}", ["18:17: node 'scale' gives no tensor 'y' (there is: x)"]),
        ("Model", "{X: scale.X}", ["18:17: node 'scale' gives no tensor 'X' (did you mean 'scale.x'?)"]),
        ("Model", "{X: small.lable}", ["18:17: node 'small' gives no tensor 'lable' (did you mean 'small.label'?)"]),
        ("Model", "{X: scale.}", ["18:17: node 'scale' gives no tensor '' (there is: x)"]),
        (
            "Text",
            "{text: scale.x}",
            [
                "18:20: 'scale.x' does not fit tensor 'text' of node 'large': "
                "it is FP32[rows, 64] where BYTES[rows] is needed"
            ],
        ),
        (
            "Model",
            "{X: small.p}",
            [
                "18:17: 'small.p' does not fit tensor 'X' of node 'large': "
                "it is FP32[rows, 10] where FP32[rows, 64] is needed"
            ],
        ),
        (
            "Add",
            "{a: image, b: small.p}",
            [
                "18:27: 'small.p' does not fit tensor 'b' of node 'large': "
                "it is FP32[rows, 10] where FP32[rows, n] is needed and n is 64"
            ],
        ),
        (
            "Stack",
            "{a: image, b: small.p}",
            [
                "18:27: 'small.p' does not fit tensor 'b' of node 'large': "
                "it is FP32[rows, 10] where FP32[rows, ...] is needed and ... is [64]"
            ],
        ),
        (
            "Transpose",
            "{x: image}",
            [
                "18:17: 'image' does not fit tensor 'x' of node 'large': "
                "it is FP32[rows, 64] where FP32[rows, n, m] is needed"
            ],
        ),
        ("Model", "[small]", ["18:5: node 'large' takes tensors: write inputs as {tensor: node.tensor}"]),
    ],
)
def test_inputs_that_do_not_fit_are_told(uses: str, inputs: str, problems: list[str]) -> None:
    assert told(large(uses, inputs)) == problems


def test_an_input_of_the_graph_that_fits_nowhere_is_told_at_each_edge() -> None:
    for shape in ("-1", "-1, 65", "-1, 64, 1"):
        given = f"FP32[{', '.join(['rows', *shape.split(', ')[1:]])}]"
        why = f"it is {given} where FP32[rows, 64] is needed"
        assert told(changed("[-1, 64]", f"[{shape}]")) == [
            f"12:17: 'scale.x' does not fit tensor 'X' of node 'small': {why}",
            f"19:17: 'scale.x' does not fit tensor 'X' of node 'large': {why}",
        ]
    assert told(changed("FP32, shape", "FP64, shape")) == [
        "9:17: 'image' does not fit tensor 'x' of node 'scale': it is FP64[rows, 64] where FP32[rows, ...] is needed"
    ]


def test_a_size_that_is_not_known_fits_and_is_checked_when_it_comes() -> None:
    graph = compiled(changed("[-1, 64]", "[-1, -1]")).graph
    assert graph.inputs["image"] == spec("FP32[rows, ?]")
    assert graph.node("scale").gives["x"] == spec("FP32[rows, ?]")
    assert graph.node("small").takes["X"] == spec("FP32[rows, 64]")


@pytest.mark.parametrize(
    ("uses", "problem"),
    [
        ("Undeclared", "Undeclared declares no signature"),
        (
            "Stumbling",
            "Stumbling cannot tell its signature: AttributeError: 'Stumbling' object has no attribute 'lost'",
        ),
        ("TextSignature", "TextSignature.signature has to be a mesh.Signature, not str"),
        ("NotByRows", "NotByRows.signature: tensor 'x' is FP32[64]: its first dimension has to be 'rows'"),
        ("MadeUp", f"MadeUp.signature: FP31 is none of {DATATYPES}, in 'x: FP31[rows] -> '"),
        (
            "Nameless",
            "Nameless.signature: not a tensor ('name: DATATYPE[rows, ...]'): 'a b: FP32[rows]' "
            "in 'a b: FP32[rows] -> '",
        ),
        ("NoSpecs", "NoSpecs.signature has to map names to TensorSpec, and 'x' is 'FP32[rows]'"),
        (
            "Unwritable",
            "Unwritable.signature cannot be written as text: x: FP32[rows, 1] ->",
        ),
        ("NoMapping", "NoMapping.signature is none: AttributeError: 'list' object has no attribute 'items'"),
        ("OddDigest", "OddDigest.digest has to give a text, not int"),
        ("OddVersion", "OddVersion.version has to be a text, not int"),
        ("NoVersion", "NoVersion cannot tell its version: KeyError: 'VERSION'"),
        ("NoDigest", "NoDigest cannot tell its digest: FileNotFoundError: weights.bin"),
    ],
)
def test_what_a_node_says_wrongly_of_itself_is_told_at_its_class(uses: str, problem: str) -> None:
    assert told(one_node(uses)) == [f"7:11: {problem}"]


def test_a_model_that_cannot_be_read_is_told_where_its_file_is_named() -> None:
    text = one_node("BrokenFile", "    with: {model: given.py}\n")
    assert told(text) == ["9:19: BrokenFile cannot tell its signature: ValueError: not a model"]


@pytest.mark.parametrize(
    ("uses", "problem"),
    [
        ("Picky", "they differ in datatype"),
        ("Clumsy", "Clumsy cannot tell what it gives: KeyError: 'nobody'"),
        ("Silent", "Silent cannot tell what it gives: TypeError: 'NoneType' object is not iterable"),
        ("Scalar", "what Scalar gives: tensor 'x' is FP32[]: its first dimension has to be 'rows'"),
    ],
)
def test_an_aggregate_that_cannot_join_is_told_at_its_branches(uses: str, problem: str) -> None:
    text = changed(f"uses: {NODES}:Join", f"uses: {NODES}:{uses}")
    assert told(text) == [f"22:5: node 'answer' cannot join these branches: {problem}"]


def test_an_aggregate_joins_a_list_of_nodes_and_takes_no_layers() -> None:
    written = changed("inputs: [small, large]", "inputs: {a: small.p}")
    assert told(written) == ["22:5: node 'answer' is an aggregate: write inputs as a list of nodes"]
    text = changed("inputs: [small, large]", "inputs: [small, large]\n    layers: [{batch: }]")
    assert told(text) == ["23:5: an aggregate takes no layers"]


def test_an_aggregate_with_a_broken_digest_is_told_at_its_branches() -> None:
    text = changed(f"uses: {NODES}:Join", f"uses: {NODES}:OddJoin")
    assert told(text) == ["21:11: OddJoin.digest has to give a text, not int"]


def test_an_aggregate_gives_what_it_joins_its_own_symbols_unknown() -> None:
    answer = compiled(GOOD).graph.node("answer")
    assert answer.gives == {"label": spec("INT64[rows]"), "sizes": spec("INT64[rows, ?]")}
    assert answer.branches == {
        "small": {"label": "small.label", "p": "small.p"},
        "large": {"label": "large.label", "p": "large.p"},
    }
    assert (answer.inputs, answer.takes) == ({}, {})


def test_one_mistake_is_not_told_again_by_all_that_follows() -> None:
    assert told(changed(f"uses: {NODES}:Scale", f"uses: {NODES}:Skale")) == [
        f"7:11: 'Skale' of module '{NODES}' is not there; did you mean 'Scale'?"
    ]
    assert told(changed("divide_by: 16", "divide_by: x")) == ["8:23: 'divide_by' has to be a number, not 'x'"]
    assert told(changed("{x: image}", "{x: imagg}")) == [
        "9:17: 'imagg' is no input of the graph (did you mean 'image'?)"
    ]


def test_a_mistake_does_not_hide_those_of_the_nodes_behind_it() -> None:
    text = changed(
        "divide_by: 16", "divide_by: x", changed("add: 100", "add: y", changed("answer.label", "answer.lab"))
    )
    assert told(text) == [
        "8:23: 'divide_by' has to be a number, not 'x'",
        "18:17: 'add' has to be a whole number, not 'y'",
    ]
    text = changed("divide_by: 16", "divide_by: x", changed("p: small.p", "p: small.q"))
    assert told(text) == [
        "8:23: 'divide_by' has to be a number, not 'x'",
        "25:6: node 'small' gives no tensor 'q' (there is: label, p)",
    ]


def test_a_node_whose_arguments_are_wrong_still_fits_its_edges_where_its_class_says_what_it_takes() -> None:
    text = changed("with: {add: 100}\n    inputs: {X: scale.x}", "with: {add: x}\n    inputs: {X: scale.x, Y: image}")
    assert told(text) == [
        "18:17: 'add' has to be a whole number, not 'x'",
        "19:26: node 'large' takes no tensor 'Y' (there is: X)",
    ]


@pytest.mark.parametrize(
    ("uses", "inputs", "takes", "gives"),
    [
        ("Settings", "{x: image}", {"x": "FP32[rows, 64]"}, {"x": "FP32[rows, 64]"}),
        ("Add", "{a: image, b: scale.x}", {"a": "FP32[rows, 64]", "b": "FP32[rows, 64]"}, {"sum": "FP32[rows, 64]"}),
        (
            "Stack",
            "{a: image, b: scale.x}",
            {"a": "FP32[rows, 64]", "b": "FP32[rows, 64]"},
            {"both": "FP32[rows, 2, 64]"},
        ),
    ],
)
def test_a_node_takes_and_gives_what_its_edges_tell(
    uses: str, inputs: str, takes: dict[str, str], gives: dict[str, str]
) -> None:
    node = compiled(large(uses, inputs)).graph.node("large")
    assert node.takes == {name: spec(one) for name, one in takes.items()}
    assert node.gives == {name: spec(one) for name, one in gives.items()}
