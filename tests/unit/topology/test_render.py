"""Plans as Mermaid and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape

from hypothesis import example, given
from hypothesis import strategies as st

from mesh.topology.graph import Join, Share
from mesh.topology.render import mermaid, svg, to_json
from tests.unit.topology.render_plans import DIGITS, IMAGE, SCORES, TWO, fused, graph, node, strange

# Mermaid


def test_mermaid_of_two_workers_is_this_flowchart() -> None:
    assert mermaid(TWO) == (
        "flowchart LR\n"
        '  input_image(["image"])\n'
        '  subgraph worker_front["front"]\n'
        '    node_scale{{"scale<br>nodes.tabular:Scale"}}\n'
        '    node_small["small<br>nodes.onnx:OnnxPredict<br>queue · batch"]\n'
        '    node_answer[/"answer<br>nodes.aggregate:FirstOf"\\]\n'
        "  end\n"
        '  subgraph worker_heavy["heavy · 2 replicas · grpc://10.0.0.2:7001"]\n'
        '    node_large["large<br>nodes.onnx:OnnxPredict"]\n'
        "  end\n"
        '  output_label(["label"])\n'
        '  output_scores(["scores"])\n'
        '  input_image -->|"image as x: FP32[rows, 64]"| node_scale\n'
        '  node_scale -->|"x as X: FP32[rows, 64]"| node_small\n'
        '  node_scale -->|"x as X: FP32[rows, 64]"| node_large\n'
        '  node_small -->|"label: INT64[rows]<br>p: FP32[rows, 10]"| node_answer\n'
        '  node_large -->|"label: INT64[rows]<br>p: FP32[rows, 10]"| node_answer\n'
        '  node_answer -->|"label: INT64[rows]"| output_label\n'
        '  node_small -->|"p as scores: FP32[rows, 10]"| output_scores\n'
    )


def test_mermaid_draws_no_subgraph_around_a_single_worker() -> None:
    text = mermaid(fused(DIGITS))
    assert "subgraph" not in text
    assert '\n  node_large["large<br>nodes.onnx:OnnxPredict"]\n' in text


STATEMENT = re.compile(
    r'flowchart LR|  ((input|output)_ID\(\["LABEL"\]\)|node_ID(\["LABEL"\]|\{\{"LABEL"\}\}|\[/"LABEL"\\\])'
    r'|(input|node)_ID -->\|"LABEL"\| (node|output)_ID)'.replace("ID", r"[A-Za-z0-9_]*(-[A-Za-z0-9_]+)*").replace(
        "LABEL", r"([\w :.,?/()\[\]·+-]|#\d+;|<br>)+"
    )
)


@given(st.text(min_size=1, max_size=20).filter(lambda name: "." not in name))
@example("end")
@example("a--b-")
@example("-")
@example("&lt;")
@example('`<b>"#35;|')
def test_whatever_a_name_holds_mermaid_reads_it_as_a_name(name: str) -> None:
    text = mermaid(strange(name))
    # Mermaid ends a statement wherever JavaScript ends a line, and splits at nothing else that is let through.
    assert all(STATEMENT.fullmatch(line) for line in text.removesuffix("\n").split("\n")), text
    (shown,) = re.findall(r'input_\S+?\(\["(.*)"\]\)', text)
    assert re.sub(r"#(\d+);", lambda found: chr(int(found[1])), shown) == name


@given(st.lists(st.text("ab2dX-_.é", min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_different_names_get_different_identifiers(names: list[str]) -> None:
    plan = fused(graph("g", dict.fromkeys(names, IMAGE), [], {"out": names[0]}))
    first, second = re.findall(r"(input_\S+)\(", mermaid(plan))
    assert first != second


# JSON


def test_json_says_everything_but_what_constructors_are_given() -> None:
    told = to_json(TWO)
    assert json.loads(json.dumps(told)) == told
    assert "hunter2" not in json.dumps(told)
    image = {"datatype": "FP32", "shape": ["rows", 64]}
    label = {"datatype": "INT64", "shape": ["rows"]}
    scores = {"datatype": "FP32", "shape": ["rows", 10]}
    nodes = told.pop("nodes")
    del told["partitions"]
    assert told == {
        "mesh": "v1",
        "graph": "digits",
        "description": "",
        "digest": DIGITS.digest,
        "placement": "two",
        "gateway": "front",
        "inputs": {"image": image},
        "outputs": {"label": {"edge": "answer.label", **label}, "scores": {"edge": "small.p", **scores}},
        "workers": [
            {"name": "front", "address": None, "replicas": 1, "nodes": ["scale", "small", "answer"]},
            {"name": "heavy", "address": "grpc://10.0.0.2:7001", "replicas": 2, "nodes": ["large"]},
        ],
    }
    assert [one["name"] for one in nodes] == ["scale", "small", "large", "answer"]
    assert nodes[1] == {
        "name": "small",
        "kind": "predict",
        "uses": "nodes.onnx:OnnxPredict",
        "model_digest": "",
        "layers": [
            {"name": "queue", "settings": {"max_rows": 64}},
            {"name": "batch", "settings": {"max_rows": 8}},
        ],
        "gives": {"label": label, "p": scores},
        "rules": [],
        "reads": [],
        "worker": "front",
        "inputs": {"X": {"edge": "scale.x", **image}},
        "branches": {},
    }
    assert nodes[3]["branches"] == {
        "small": {"label": {"edge": "small.label", **label}, "p": {"edge": "small.p", **scores}},
        "large": {"label": {"edge": "large.label", **label}, "p": {"edge": "large.p", **scores}},
    }


def test_json_tells_the_pieces_that_are_called_as_one() -> None:
    assert to_json(TWO)["partitions"] == [
        {
            "name": "front/scale",
            "worker": "front",
            "exit": "scale",
            "nodes": ["scale"],
            "inputs": ["image"],
            "outputs": ["scale.x"],
        },
        {
            "name": "front/small",
            "worker": "front",
            "exit": "small",
            "nodes": ["small"],
            "inputs": ["scale.x"],
            "outputs": ["small.label", "small.p"],
        },
        {
            "name": "heavy/large",
            "worker": "heavy",
            "exit": "large",
            "nodes": ["large"],
            "inputs": ["scale.x"],
            "outputs": ["large.label", "large.p"],
        },
        {
            "name": "front/answer",
            "worker": "front",
            "exit": "answer",
            "nodes": ["answer"],
            "inputs": ["small.label", "small.p", "large.label", "large.p"],
            "outputs": ["answer.label"],
        },
    ]


FLOWING = graph(
    "flowing",
    {"image": IMAGE},
    [
        node("small", "predict", "m:C", inputs={"X": "image"}, gives={"p": SCORES}),
        replace(
            node("large", "predict", "m:C", inputs={"X": "image"}, gives={"p": SCORES}),
            when="max(small.p) < 0.9",
            reads=("small.p",),
            share=Share(group="ab", begin=0.9, end=1.0, by=("image",)),
        ),
        replace(node("new", "predict", "m:C", inputs={"X": "image"}, gives={"p": SCORES}), shadows="small"),
        replace(
            node(
                "answer",
                "aggregate",
                "m:C",
                branches={"small": {"p": "small.p"}, "large": {"p": "large.p"}},
                gives={"p": SCORES},
            ),
            join=Join(quorum=1, required=("small",), waits=True, deadline_s=0.08, timeouts_s={"large": 0.02}),
        ),
    ],
    {"p": "answer.p"},
)
RULES = {
    "small": [],
    "large": ["when max(small.p) < 0.9", "10 % of ab"],
    "new": ["shadow of small"],
    "answer": ["1 of 2, with small, until 80ms, large within 20ms"],
}


def test_rules_of_the_flow_are_told_in_every_form() -> None:
    plan = fused(FLOWING)
    told = {one["name"]: one for one in to_json(plan)["nodes"]}
    assert {name: one["rules"] for name, one in told.items()} == RULES
    assert told["large"]["reads"] == told["new"]["reads"] == ["small.p"]
    drawn, text = svg(plan), mermaid(plan)
    for rule in (rule for rules in RULES.values() for rule in rules):
        assert escape(rule) in drawn
        assert re.sub(r"[<%]", lambda found: f"#{ord(found[0])};", rule) in text


def test_what_is_only_looked_at_is_drawn_otherwise() -> None:
    plan = fused(FLOWING)
    assert 'node_small -.->|"p: FP32[rows, 10]"| node_large' in mermaid(plan)
    assert 'node_small -.->|"p: FP32[rows, 10]"| node_new' in mermaid(plan)
    assert 'node_small -->|"p: FP32[rows, 10]"| node_answer' in mermaid(plan)
    (aside,) = re.findall(r'class="wire aside" data-from="node:small" data-to="([^"]*)"', svg(plan))
    assert aside.split() == ["node:large", "node:new"]
