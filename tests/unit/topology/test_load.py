"""The shape of the file: sections, names, keys, types and bounds, each mistake in its place and in plain words."""

from __future__ import annotations

import pytest

from mesh.topology.load import MAX_NODES, SECTIONS, load_text
from mesh.topology.source import named
from tests.unit.topology.given import GOOD, LAYERS, NODES, changed, compiled, told

NAME_RULE = "lower case letters, digits, '_' and '-', a letter first, at most 63"
IMAGE = "{datatype: FP32, shape: [-1, 64]}"
LAYERS_OF_SMALL = "    layers:\n      - queue: {max_rows: 64}\n      - batch: {max_rows: 8, max_delay: 1ms}\n"
QUEUE = "      - queue: {max_rows: 64}\n"
SMALL = f"  small:\n    uses: {NODES}:Model\n    inputs: {{X: scale.x}}\n{LAYERS_OF_SMALL}"
USES = f"    uses: {NODES}:Scale\n"
INPUTS = "    inputs: {x: image}\n"
WITH = "    with: {divide_by: 16}\n"
OUTPUTS = "  label: answer.label\n  p: small.p\n"
HEAVY = '    heavy: {nodes: [large], address: "grpc://127.0.0.1:7001", replicas: 2}\n'
TWO = f"  two:\n    front: {{nodes: [scale, small, answer]}}\n{HEAVY}"
SIZE = "write a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), as in 64MiB"
DURATION = "write a number and a unit (us, ms, s, m, h, d), as in 5ms"
FORM = "has to be a mapping {tensor: node.tensor}, or for an aggregate a list of nodes, not"
ONE_LAYER = "a layer is one name and its settings: `- batch: {max_rows: 32}`"
DATATYPES = "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, ... (14 in all)"
DIMENSION = "a dimension is -1, where any size is taken, or a size from 1 to 1099511627776"


def test_the_good_topology_is_good() -> None:
    assert told(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("mesh: v1\n", "", "1:1: 'mesh' is missing"),
        ("mesh: v1", "mesh: 1", "1:7: 'mesh' has to be 'v1', not 1"),
        ("mesh: v1", "mesh: V1", "1:7: 'mesh' has to be 'v1', not 'V1'"),
        ("mesh: v1", "mesh:", "1:6: 'mesh' has to be 'v1', not nothing"),
        ("name: digits\n", "", "1:1: 'name' is missing"),
        ("name: digits", "name: Digits", f"2:7: 'Digits' is no name: {NAME_RULE}"),
        ("name: digits", "name: 5", "2:7: 'name' has to be a text, not 5 (put it in quotes)"),
        ("name: digits", "name:", "2:6: 'name' has to be a text, not nothing"),
        ("name: digits", f"name: {'x' * 64}", f"2:7: '{'x' * 56}... is no name: {NAME_RULE}"),
        ("mesh: v1", "mesh: v1\ndescription: 5", "2:14: 'description' has to be a text, not 5 (put it in quotes)"),
        (
            "mesh: v1",
            f"mesh: v1\ndescription: {'x' * 2001}",
            "2:14: 'description' may have at most 2000 characters, not 2001",
        ),
        ("mesh: v1", "mesh: v1\nmodels: ''", "2:9: 'models' may not be empty"),
        ("mesh: v1", "mesh: v1\nmodels: [a]", "2:9: 'models' has to be a text, not ['a']"),
        ("mesh: v1", "mesh: v1\nengine: grpc", "2:9: 'engine' has to be 'wire' or 'grpcio', not 'grpc'"),
        ("mesh: v1", "mesh: v1\nlimits: 5", "2:9: 'limits' has to be a mapping, not 5"),
        ("mesh: v1", "mesh: v1\nlimits:", "2:8: 'limits' has to be a mapping, not nothing"),
        ("mesh: v1", "mesh: v1\nfoo: 1", f"2:1: 'foo' is no part of a topology (there is: {named(SECTIONS)})"),
        ("name: digits", "nane: digits", "2:1: 'nane' is no part of a topology (did you mean 'name'?)"),
        ("\noutputs:", "\nouputs:", "23:1: 'ouputs' is no part of a topology (did you mean 'outputs'?)"),
        ("inputs:\n  image", "input:\n  image", "3:1: 'input' is no part of a topology (did you mean 'inputs'?)"),
        ("nodes:\n  scale", "node:\n  scale", "5:1: 'node' is no part of a topology (did you mean 'nodes'?)"),
        ("placements:", "placement:", "26:1: 'placement' is no part of a topology (did you mean 'placements'?)"),
        (f"inputs:\n  image: {IMAGE}\n", "", "1:1: 'inputs' is missing"),
        (f"inputs:\n  image: {IMAGE}\n", "inputs:\n", "3:1: 'inputs' has to be a mapping with at least one entry"),
        (f"inputs:\n  image: {IMAGE}\n", "inputs: {}\n", "3:1: 'inputs' has to be a mapping with at least one entry"),
        (f"inputs:\n  image: {IMAGE}\n", "inputs: [x]\n", "3:1: 'inputs' has to be a mapping with at least one entry"),
        (f"outputs:\n{OUTPUTS}", "", "1:1: 'outputs' is missing"),
        (OUTPUTS, "", "23:1: 'outputs' has to be a mapping with at least one entry"),
        (OUTPUTS, "  - label\n", "23:1: 'outputs' has to be a mapping with at least one entry"),
        (f"placements:\n{TWO}", "placements: [a]\n", "26:1: 'placements' has to be a mapping"),
        (f"placements:\n{TWO}", "placements:\n", "26:1: 'placements' has to be a mapping"),
    ],
)
def test_a_wrong_section_is_told_alone(old: str, new: str, problem: str) -> None:
    assert told(changed(old, new)) == [problem]


def test_a_topology_without_nodes_is_told_so_and_nothing_else() -> None:
    head = GOOD.partition("nodes:\n")[0]
    for nodes in ("nodes:\n", "nodes: {}\n", "nodes: [a]\n"):
        text = f"{head}{nodes}outputs: {{x: it.x}}\n"
        assert told(text) == ["5:1: 'nodes' has to be a mapping with at least one entry"]
    assert told(f"{head}outputs: {{x: it.x}}\n") == ["1:1: 'nodes' is missing"]


@pytest.mark.parametrize(
    ("limits", "problems"),
    [
        ("max_message: 5", [f"2:23: 'limits.max_message': 5 is not a size: {SIZE}"]),
        ("max_message: 5 apples", [f"2:23: 'limits.max_message': '5 apples' is not a size: {SIZE}"]),
        ("max_message: 0B", ["2:23: 'limits.max_message' has to be above 0B, not '0B'"]),
        ("max_message: 2GiB", ["2:23: 'limits.max_message' has to be at most 1GiB, not '2GiB'"]),
        ("max_mesage: 2MiB", ["2:10: 'max_mesage' is not taken here (did you mean 'max_message'?)"]),
        ("zzz: 2MiB", ["2:10: 'zzz' is not taken here (there is: max_message, max_in_flight, default_timeout)"]),
        ("max_in_flight: 0", ["2:25: 'limits.max_in_flight' has to be at least 1, not 0"]),
        ("max_in_flight: 1000001", ["2:25: 'limits.max_in_flight' has to be at most 1000000, not 1000001"]),
        ("max_in_flight: 1.5", ["2:25: 'limits.max_in_flight' has to be a whole number, not 1.5"]),
        ("max_in_flight: true", ["2:25: 'limits.max_in_flight' has to be a whole number, not true"]),
        ("default_timeout: 5", [f"2:27: 'limits.default_timeout': 5 is not a duration: {DURATION}"]),
        ("default_timeout: 0s", ["2:27: 'limits.default_timeout' has to be above 0s, not '0s'"]),
        ("default_timeout: 25h", ["2:27: 'limits.default_timeout' has to be at most 86400s, not '25h'"]),
        (
            "max_in_flight: 0, max_message: 5MiB, default_timeout: 0s",
            [
                "2:25: 'limits.max_in_flight' has to be at least 1, not 0",
                "2:64: 'limits.default_timeout' has to be above 0s, not '0s'",
            ],
        ),
    ],
)
def test_a_limit_is_told_in_the_unit_that_it_is_written_in(limits: str, problems: list[str]) -> None:
    assert told(changed("mesh: v1", f"mesh: v1\nlimits: {{{limits}}}")) == problems


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Image", "'Image'"),
        ("5", "'5'"),
        ("im.age", "'im.age'"),
        ("im age", "'im age'"),
        ("_image", "'_image'"),
        ("é", "'é'"),
        ("''", "''"),
        ("x" * 64, f"'{'x' * 56}..."),
    ],
)
def test_what_is_no_name_is_told_wherever_a_name_stands(name: str, shown: str) -> None:
    rule = f"{shown} is no name: {NAME_RULE}"
    assert f"4:3: {rule}" in told(changed("  image: {", f"  {name}: {{"))
    assert f"16:3: {rule}" in told(changed("  large:\n", f"  {name}:\n"))
    assert told(changed("  label: answer.label", f"  {name}: answer.label")) == [f"24:3: {rule}"]
    assert told(changed("  two:\n", f"  {name}:\n")) == [f"27:3: {rule}"]
    assert told(changed("    front: {", f"    {name}: {{")) == [f"28:5: {rule}"]


@pytest.mark.parametrize("name", ["a", "a-b_9", "x" * 63])
def test_a_name_is_taken_wherever_a_name_stands(name: str) -> None:
    text = changed("name: digits", f"name: {name}", GOOD.replace("image", name))
    text = changed("  label: answer.label", f"  {name}: answer.label", text)
    assert told(changed("  two:\n    front: {", f"  {name}:\n    {name}: {{", text)) == []
    assert told(GOOD.replace("large", name)) == []


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        ("FP32", "4:10: 'image' has to be a mapping, not 'FP32'"),
        ("", "4:9: 'image' has to be a mapping, not nothing"),
        ("{shape: [-1, 64]}", "4:3: 'datatype' is missing"),
        ("{datatype: FP32}", "4:3: 'shape' is missing"),
        ("{dtype: FP32, shape: [-1, 64]}", "4:11: 'dtype' is not taken here (did you mean 'datatype'?)"),
        (
            "{datatype: FP32, shape: [-1, 64], name: x}",
            "4:44: 'name' is not taken here (there is: datatype, shape)",
        ),
        ("{datatype: float32, shape: [-1, 64]}", "4:21: 'datatype': 'float32' is no datatype; did you mean 'FP32'?"),
        ("{datatype: FP33, shape: [-1, 64]}", "4:21: 'datatype': 'FP33' is no datatype; did you mean 'FP32'?"),
        ("{datatype: str, shape: [-1]}", f"4:21: 'datatype': 'str' is no datatype; there is: {DATATYPES}"),
        ("{datatype: 32, shape: [-1, 64]}", "4:21: 'datatype' has to be a text, not 32 (put it in quotes)"),
        ("{datatype: FP32, shape: 64}", "4:34: 'shape' has to be a list, not 64"),
        ("{datatype: FP32, shape: []}", "4:34: 'shape' may not be empty"),
        ("{datatype: FP32, shape: [64]}", "4:34: 'shape': the first dimension has to be -1: axis 0 is the batch"),
        ("{datatype: FP32, shape: [-1, 0]}", f"4:34: 'shape': {DIMENSION}"),
        ("{datatype: FP32, shape: [-1, -2]}", f"4:34: 'shape': {DIMENSION}"),
        ("{datatype: FP32, shape: [-1, 1099511627777]}", f"4:34: 'shape': {DIMENSION}"),
        ("{datatype: FP32, shape: [-1, 6.5]}", "4:39: 'shape[1]' has to be a whole number, not 6.5"),
        ("{datatype: FP32, shape: [-1, true]}", "4:39: 'shape[1]' has to be a whole number, not true"),
        ("{datatype: FP32, shape: [-1, x]}", "4:39: 'shape[1]' has to be a whole number, not 'x'"),
        (f"{{datatype: FP32, shape: [{'-1, ' * 32}-1]}}", "4:34: 'shape' may have at most 32 entries, not 33"),
    ],
)
def test_a_wrong_input_is_told_alone(new: str, problem: str) -> None:
    assert told(changed(IMAGE, new)) == [problem]


def test_all_that_an_input_lacks_is_told() -> None:
    assert told(changed(IMAGE, "{}")) == ["4:3: 'datatype' is missing", "4:3: 'shape' is missing"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (SMALL, "  small: 5\n", "10:10: 'small' has to be a mapping, not 5"),
        (SMALL, "  small:\n", "10:9: 'small' has to be a mapping, not nothing"),
        (USES, "", "6:3: 'uses' is missing"),
        (USES, f"    use: {NODES}:Scale\n", "7:5: 'use' is not taken here (did you mean 'uses'?)"),
        (USES, "    uses: Scale\n", "7:11: 'Scale' has to be module:Class, as in nodes.text:Lowercase"),
        (USES, "    uses: nodes..text:X\n", "7:11: 'nodes..text:X' has to be module:Class, as in nodes.text:Lowercase"),
        (USES, "    uses: 5\n", "7:11: 'uses' has to be a text, not 5 (put it in quotes)"),
        (USES, f"    uses: {'a' * 400}:B\n", "7:11: 'uses' may have at most 400 characters, not 402"),
        (INPUTS, "", "6:3: 'inputs' is missing"),
        (INPUTS, "    input: {x: image}\n", "9:5: 'input' is not taken here (did you mean 'inputs'?)"),
        (INPUTS, "    inputs: image\n", f"9:13: 'inputs' {FORM} 'image'"),
        (INPUTS, "    inputs:\n", f"9:12: 'inputs' {FORM} nothing"),
        (INPUTS, "    inputs: {x: 5}\n", "9:17: 'inputs.x' has to be a text, not 5 (put it in quotes)"),
        (INPUTS, "    inputs: {x: [image]}\n", "9:17: 'inputs.x' has to be a text, not ['image']"),
        (INPUTS, "    inputs: [5]\n", "9:14: 'inputs[0]' has to be a text, not 5 (put it in quotes)"),
        (WITH, "    with: 16\n", "8:11: 'with' has to be a mapping, not 16"),
        (WITH, "    with: [16]\n", "8:11: 'with' has to be a mapping, not [16]"),
        (WITH, "    with:\n", "8:10: 'with' has to be a mapping, not nothing"),
        (WITH, "    wiht: {divide_by: 16}\n", "8:5: 'wiht' is not taken here (did you mean 'with'?)"),
        (
            WITH,
            f"{WITH}    zzz: 1\n",
            "9:5: 'zzz' is not taken here (there is: uses, with, inputs, when, split, shadow, join, layers)",
        ),
        (LAYERS_OF_SMALL, "    layers: batch\n", "13:13: 'layers' has to be a list, not 'batch'"),
        (LAYERS_OF_SMALL, "    layers: {batch: {}}\n", "13:13: 'layers' has to be a list, not {'batch': {}}"),
        (QUEUE, "      - queue:\n" * 8, "14:7: 'layers' may have at most 8 entries, not 9"),
        (QUEUE, "      - queue\n", "14:9: 'layers[0]' has to be a mapping, not 'queue'"),
        (QUEUE, "      - {}\n", f"14:9: {ONE_LAYER}"),
        (QUEUE, "      - queue:\n        max_rows: 64\n", f"14:9: {ONE_LAYER}"),
        (QUEUE, "      - cash: {max_rows: 64}\n", "14:9: no layer is called 'cash' (there is: batch, queue, timeout)"),
        (QUEUE, "      - qeue: {max_rows: 64}\n", "14:9: no layer is called 'qeue' (did you mean 'queue'?)"),
        (QUEUE, "      - queue: 64\n", "14:16: 'queue' has to be a mapping, not 64"),
        (QUEUE, "      - queue: {max_rows: 0}\n", "14:27: 'max_rows' has to be at least 1, not 0"),
        (QUEUE, "      - queue: {rows: 1}\n", "14:17: 'rows' is not taken here (did you mean 'max_rows'?)"),
        (QUEUE, "      - queue: {when_full: no}\n", "14:28: 'when_full' has to be 'reject' or 'wait', not 'no'"),
        (QUEUE, "      - timeout:\n", "14:9: 'after' is missing"),
        (QUEUE, "      - timeout: {after: 0s}\n", "14:26: 'after' has to be above 0s, not '0s'"),
        (QUEUE, "      - timeout: {after: 5}\n", f"14:26: 'after': 5 is not a duration: {DURATION}"),
    ],
)
def test_a_wrong_part_of_a_node_is_told_alone(old: str, new: str, problem: str) -> None:
    assert told(changed(old, new)) == [problem]


def test_the_name_of_a_node_is_not_taken_by_an_input_or_the_worker_in_front() -> None:
    assert told(changed("  scale:", "  image:"))[0] == "6:3: 'image' is the name of an input as well"
    assert told(changed("  scale:", "  gateway:"))[0] == "6:3: 'gateway' is the name of the worker in front"
    # Also where the input is wrong in another way.
    text = changed(IMAGE, "{}", changed("  large:", "  image:"))
    assert "16:3: 'image' is the name of an input as well" in told(text)


def test_a_layer_may_be_written_without_settings() -> None:
    graph = compiled(changed(QUEUE, "      - queue:\n")).graph
    assert graph.node("small").layers[0].settings == {}


@pytest.mark.parametrize(
    ("value", "shown"), [("5", "5"), ("", "nothing"), ("[answer.label]", "['answer.label']"), ("true", "true")]
)
def test_an_output_that_is_no_text_is_told_alone(value: str, shown: str) -> None:
    column = 10 if value else 9
    problem = f"24:{column}: 'label' has to be node.tensor, not {shown}"
    assert told(changed("label: answer.label", f"label: {value}")) == [problem]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (TWO, "  two: {}\n", "27:3: placement 'two' has to be a mapping from worker to what it runs"),
        (TWO, "  two:\n", "27:3: placement 'two' has to be a mapping from worker to what it runs"),
        (TWO, "  two: [front]\n", "27:3: placement 'two' has to be a mapping from worker to what it runs"),
        ("  two:", "  fused:", "27:3: 'fused' always exists and cannot be written anew"),
        ("  two:", "  processes:", "27:3: 'processes' always exists and cannot be written anew"),
        (HEAVY, "    heavy: {}\n", "29:5: 'nodes' is missing"),
        (HEAVY, "    heavy:\n", "29:11: 'heavy' has to be a mapping, not nothing"),
        (HEAVY, "    heavy: [large]\n", "29:12: 'heavy' has to be a mapping, not ['large']"),
        (HEAVY, "    heavy: {nodes: large}\n", "29:20: 'nodes' has to be a list, not 'large'"),
        (HEAVY, "    heavy: {nodes: [5]}\n", "29:21: 'nodes[0]' has to be a text, not 5 (put it in quotes)"),
        (HEAVY, "    heavy: {node: [large]}\n", "29:13: 'node' is not taken here (did you mean 'nodes'?)"),
        ("replicas: 2", "replica: 2", "29:63: 'replica' is not taken here (did you mean 'replicas'?)"),
        ("replicas: 2", "replicas: 0", "29:73: 'replicas' has to be at least 1, not 0"),
        ("replicas: 2", "replicas: 65", "29:73: 'replicas' has to be at most 64, not 65"),
        ("replicas: 2", "replicas: '2'", "29:73: 'replicas' has to be a whole number, not '2'"),
        (
            '"grpc://127.0.0.1:7001"',
            "7001",
            "29:38: 'address' has to be a text, not 7001 (put it in quotes)",
        ),
    ],
)
def test_a_wrong_part_of_a_placement_is_told_alone(old: str, new: str, problem: str) -> None:
    assert told(changed(old, new)) == [problem]


def test_placements_may_be_left_out_or_empty() -> None:
    for placements in ("", "placements: {}\n"):
        assert compiled(changed(f"placements:\n{TWO}", placements)).placements == ["fused", "processes"]


def test_a_file_of_too_many_nodes_is_refused_before_they_are_looked_at() -> None:
    def of(count: int) -> str:
        node = f"{{uses: {NODES}:Nothing, inputs: {{}}}}"
        lines = "".join(f"  n{index}: {node}\n" for index in range(count))
        return f"{GOOD.partition('nodes:')[0]}nodes:\n{lines}outputs: {{x: n0.x}}\n"

    assert told(of(MAX_NODES + 1)) == [f"5:1: {MAX_NODES + 1} nodes; at most {MAX_NODES} are taken"]
    topology, problems = load_text(of(MAX_NODES), "t.yaml", LAYERS)
    assert (len(topology.nodes), problems) == (MAX_NODES, [])


def test_every_mistake_is_told_at_once_and_in_the_order_of_the_file() -> None:
    text = changed("mesh: v1", "mesh: v2")
    text = changed("name: digits", "name: Digits", text)
    text = changed("shape: [-1, 64]", "shape: [64]", text)
    text = changed("max_rows: 64", "max_rows: 0", text)
    text = changed("with: {add: 100}", "with: {add: x}", text)
    text = changed("answer.label", "5", text)
    text = changed("replicas: 2", "replicas: 0", text)
    assert [problem.split(": ")[0] for problem in told(text)] == [
        "1:7", "2:7", "4:34", "14:27", "18:17", "24:10", "29:73",
    ]  # fmt: skip


def test_what_is_right_is_read_beside_what_is_wrong() -> None:
    text = "mesh: v1\nname: n\nlimits: {max_in_flight: x}\nfoo: 1\n"
    topology, problems = load_text(text, "t.yaml", LAYERS)
    assert topology.header.name == "n"
    assert topology.doubts("limits")
    assert not topology.doubts("name")
    assert [problem.text for problem in problems] == [
        "'foo' is no part of a topology",
        "'limits.max_in_flight' has to be a whole number, not 'x'",
        "'inputs' is missing",
        "'nodes' is missing",
        "'outputs' is missing",
    ]


def test_a_file_says_all_that_it_may() -> None:
    text = changed(
        "name: digits",
        "name: digits\ndescription: what it is for\nmodels: ..\nengine: grpcio\n"
        "limits: {max_message: 1MiB, max_in_flight: 7, default_timeout: 1m}",
    )
    graph = compiled(text).graph
    assert graph.engine == "grpcio"
    assert graph.description == "what it is for"
    assert graph.model_root.endswith("/tests/unit")
    limits = graph.limits
    assert (limits.max_message_bytes, limits.max_in_flight, limits.default_timeout_s) == (1 << 20, 7, 60.0)
