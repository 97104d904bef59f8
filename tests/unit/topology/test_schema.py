"""The JSON Schema of topology files: takes whatever the compiler takes, and refuses what has another shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mesh.layers import LAYERS
from mesh.topology import json_schema
from mesh.topology.source import read
from tests.unit.topology.given import GOOD, NODES, changed

SCHEMA = json_schema(LAYERS)
VALIDATOR = Draft202012Validator(SCHEMA)
ROOT = Path(__file__).resolve().parents[3]
RIGHT = sorted([*ROOT.glob("topologies/*.yaml"), *ROOT.glob("tests/e2e/meshes/*.yaml")])

IMAGE = "{datatype: FP32, shape: [-1, 64]}"
QUEUE = "      - queue: {max_rows: 64}\n"
USES = f"    uses: {NODES}:Scale\n"
INPUTS = "    inputs: {x: image}\n"
ADDRESS = '"grpc://127.0.0.1:7001"'


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(read(text, "t.yaml").value)


def test_the_schema_is_a_schema_of_the_draft_that_it_names() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.name)
def test_every_topology_of_the_repository_is_taken(path: Path) -> None:
    VALIDATOR.validate(read(path.read_text(), str(path)).value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: digits", "name: digits\ndescription: told\nmodels: ..\nengine: grpcio\nlimits: {}"),
        ("mesh: v1", "mesh: v1\nlimits: {max_message: 1.5MiB, max_in_flight: 7, default_timeout: 1 m}"),
        ("[-1, 64]", "[-1, -1]"),
        ("[-1, 64]", f"[{', '.join(['-1'] * 32)}]"),
        (QUEUE, "      - queue:\n"),
        (QUEUE, "      - queue: {}\n"),
        (QUEUE, "      - timeout: {after: 5s}\n"),
        (QUEUE, ""),
        ("with: {divide_by: 16}", "with: {divide_by: 16, anything: {a: [1, {b: null}]}}"),
        (ADDRESS, '"grpc://[::1]:1"'),
        (ADDRESS, '"unix:/run/a.sock"'),
        (ADDRESS, "null"),
        ("front: {nodes: [scale, small, answer]}", "front: {nodes: []}"),
        ("  label: answer.label", "  label: answer.a/b-c.d"),
        (INPUTS, f"{INPUTS}    when: max(scale.x) > 1\n    split: {{group: g, weight: 12.5, by: parameters.user}}\n"),
        (INPUTS, f"{INPUTS}    shadow: large\n"),
        ("[small, large]", "[small, large]\n    join: first"),
        (
            "[small, large]",
            "[small, large]\n    join: {quorum: 1, required: [small], deadline: 1s, timeouts: {large: 5ms}}",
        ),
    ],
)
def test_a_file_may_be_written_in_any_way_that_the_language_has(old: str, new: str) -> None:
    assert accepts(changed(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Sections.
        ("mesh: v1\n", ""),
        ("mesh: v1", "mesh: v2"),
        ("mesh: v1", "mesh: 1"),
        ("name: digits\n", ""),
        ("name: digits", "name: Digits"),
        ("name: digits", "name: 5"),
        ("name: digits", f"name: {'x' * 64}"),
        ("mesh: v1", "mesh: v1\nfoo: 1"),
        ("mesh: v1", f"mesh: v1\ndescription: {'x' * 2001}"),
        ("mesh: v1", "mesh: v1\nmodels: ''"),
        ("mesh: v1", "mesh: v1\nengine: grpc"),
        ("mesh: v1", "mesh: v1\nlimits:"),
        ("mesh: v1", "mesh: v1\nlimits: {max_message: 5}"),
        ("mesh: v1", "mesh: v1\nlimits: {max_message: 5 apples}"),
        ("mesh: v1", "mesh: v1\nlimits: {max_in_flight: 0}"),
        ("mesh: v1", "mesh: v1\nlimits: {max_in_flight: 1.5}"),
        ("mesh: v1", "mesh: v1\nlimits: {default_timeout: 5}"),
        ("mesh: v1", "mesh: v1\nlimits: {zzz: 5}"),
        ("outputs:\n  label: answer.label\n  p: small.p\n", ""),
        ("  label: answer.label\n  p: small.p\n", ""),
        # Inputs.
        ("  image: {", "  Image: {"),
        (IMAGE, "FP32"),
        (IMAGE, "{shape: [-1]}"),
        (IMAGE, "{datatype: FP32}"),
        ("FP32", "FP31"),
        ("FP32", "32"),
        ("[-1, 64]", "[]"),
        ("[-1, 64]", "[64]"),
        ("[-1, 64]", "[-1, 0]"),
        ("[-1, 64]", "[-1, -2]"),
        ("[-1, 64]", "[-1, 6.5]"),
        ("[-1, 64]", "[-1, 1099511627777]"),
        ("[-1, 64]", f"[{', '.join(['-1'] * 33)}]"),
        # Nodes.
        ("  scale:", "  Scale:"),
        ("  scale:", "  gateway:"),
        (USES, ""),
        (USES, "    uses: Scale\n"),
        (USES, "    uses: 5\n"),
        (USES, f"    uses: {'a' * 400}:B\n"),
        ("    with: {divide_by: 16}", "    with: 16"),
        ("    with: {divide_by: 16}", "    wiht: {divide_by: 16}"),
        ("    inputs: {x: image}\n", ""),
        ("{x: image}", "image"),
        ("{x: image}", "{}"),
        ("{x: image}", "{x: 5}"),
        ("{x: image}", "{x: IMAGE}"),
        ("[small, large]", "[]"),
        ("[small, large]", "[small, small]"),
        ("[small, large]", "[small, large.p]"),
        (QUEUE, "      - cash: {}\n"),
        (QUEUE, "      - queue: 64\n"),
        (QUEUE, "      - queue: {max_rows: 0}\n"),
        (QUEUE, "      - queue: {rows: 1}\n"),
        (QUEUE, "      - queue: {when_full: explode}\n"),
        (QUEUE, "      - {queue: , batch: }\n"),
        (QUEUE, "      - {}\n"),
        (QUEUE, "      - timeout:\n"),
        (QUEUE, "      - queue:\n" * 8),
        # Flow.
        (INPUTS, f"{INPUTS}    when: ''\n"),
        (INPUTS, f"{INPUTS}    when: 5\n"),
        (INPUTS, f"{INPUTS}    when: {'x' * 1025}\n"),
        (INPUTS, f"{INPUTS}    split: {{weight: 50}}\n"),
        (INPUTS, f"{INPUTS}    split: {{group: g, weight: 0}}\n"),
        (INPUTS, f"{INPUTS}    split: {{group: G, weight: 50}}\n"),
        (INPUTS, f"{INPUTS}    split: {{group: g, weight: 50, by: ''}}\n"),
        (INPUTS, f"{INPUTS}    shadow: Large\n"),
        ("[small, large]", "[small, large]\n    join: some"),
        ("[small, large]", "[small, large]\n    join: {quorum: 0}"),
        ("[small, large]", "[small, large]\n    join: {quorm: 1}"),
        ("[small, large]", "[small, large]\n    join: {deadline: 5}"),
        ("[small, large]", "[small, large]\n    join: {timeouts: [5s]}"),
        # Outputs.
        ("label: answer.label", "label: 5"),
        ("label: answer.label", "Label: answer.label"),
        # Placements.
        ("  two:", "  fused:"),
        ("  two:", "  Two:"),
        ("    front: {", "    Front: {"),
        ("front: {nodes: [scale, small, answer]}", "front: {}"),
        ("front: {nodes: [scale, small, answer]}", "front: {nodes: scale}"),
        ("nodes: [scale, small, answer]", "nodes: [scale, scale]"),
        ("replicas: 2", "replicas: 0"),
        ("replicas: 2", "replicas: 65"),
        ("replicas: 2", "replica: 2"),
        (ADDRESS, '"10.0.0.1:7001"'),
        (ADDRESS, '"unix:relative"'),
        (ADDRESS, "7001"),
    ],
)
def test_a_file_of_another_shape_is_refused(old: str, new: str) -> None:
    assert not accepts(changed(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{x: image}", "{x: nobody.x}"),
        ("divide_by: 16", "divided: x"),
        (":Scale\n", ":Nobody\n"),
        ("[-1, 64]", "[-1, 65]"),
        ("heavy: {nodes: [large]", "heavy: {nodes: [nobody]"),
    ],
)
def test_what_only_the_compiler_can_tell_is_left_to_it(old: str, new: str) -> None:
    assert accepts(changed(old, new))


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of the language, by the way to it, and what the schema says of it."""
    if isinstance(schema, dict):
        for name, inside in schema.get("properties", {}).items():
            yield f"{path}.{name}", inside
            yield from parts(inside, f"{path}.{name}")
        for name in ("$defs", "additionalProperties", "items"):
            yield from parts(schema.get(name), f"{path}.{name}")


def test_every_key_of_the_file_says_what_it_is_for() -> None:
    keys = dict(parts({"properties": SCHEMA["properties"]}))
    keys |= {
        path: inside
        for name in ("InputFile", "NodeFile", "WorkerFile", "LimitsFile", "SplitFile", "JoinFile")
        for path, inside in parts(SCHEMA["$defs"][name], name)
    }
    unsaid = [path for path, inside in keys.items() if not inside.get("description") and "$ref" not in inside]
    assert len(keys) > 15
    assert unsaid == []


def test_a_default_is_written_as_a_file_would_have_it() -> None:
    for name, definition in SCHEMA["$defs"].items():
        for path, inside in parts(definition, name):
            if "default" in inside:
                whole = {**inside, "$defs": SCHEMA["$defs"]}
                assert Draft202012Validator(whole).is_valid(inside["default"]), path
    assert SCHEMA["$defs"]["LimitsFile"]["properties"]["max_message"]["default"] == "64MiB"
    assert SCHEMA["$defs"]["LimitsFile"]["properties"]["default_timeout"]["default"] == "30s"


def test_a_layer_that_needs_nothing_may_be_written_bare_and_no_other() -> None:
    layers = SCHEMA["$defs"]["Layer"]["properties"]
    assert set(layers) == set(LAYERS)
    for name, layer in LAYERS.items():
        bare = not any(field.is_required() for field in layer.model_fields.values())
        assert accepts(changed(QUEUE, f"      - {name}:\n")) == bare


def test_the_good_topology_of_these_tests_is_taken() -> None:
    assert accepts(GOOD)
