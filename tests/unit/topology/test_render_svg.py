"""Plans as SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.topology.graph import GraphNode, LayerSettings
from mesh.topology.placement import Plan, Worker
from mesh.topology.render import svg
from tests.unit.topology.render_plans import DIGITS, IMAGE, LABEL, SCORES, TWO, fused, graph, node, strange

SVG = "{http://www.w3.org/2000/svg}"


def parsed(plan: Plan, notes: Mapping[str, str] | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(svg(plan, notes))


def groups(root: ElementTree.Element, word: str) -> list[ElementTree.Element]:
    return [found for found in root.iter(f"{SVG}g") if word in found.get("class", "").split()]


def texts(element: ElementTree.Element) -> list[str]:
    return [found.text or "" for found in element.iter(f"{SVG}text")]


def tooltip(element: ElementTree.Element) -> str:
    return element.findtext(f"{SVG}title") or ""


def by_vertex(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {found.get("data-vertex", ""): found for found in root.iter(f"{SVG}g") if found.get("data-vertex")}


def test_every_node_is_drawn_with_its_kind_class_worker_and_layers() -> None:
    drawn = by_vertex(parsed(TWO))
    assert set(drawn) == {
        "input:image",
        *("node:scale", "node:small", "node:large", "node:answer"),
        *("output:label", "output:scores"),
    }
    assert texts(drawn["node:scale"]) == ["scale", "preprocess · Scale", "front"]
    assert texts(drawn["node:small"]) == ["small", "predict · OnnxPredict", "front", "queue", "batch"]
    assert texts(drawn["node:large"]) == ["large", "predict · OnnxPredict", "heavy ×2"]  # noqa: RUF001
    assert texts(drawn["node:answer"]) == ["answer", "aggregate · FirstOf", "front"]
    assert texts(drawn["input:image"]) == ["image", "FP32[rows, 64]"]
    assert texts(drawn["output:scores"]) == ["scores", "FP32[rows, 10]"]
    assert "nodes.onnx:OnnxPredict" in tooltip(drawn["node:small"])
    assert [tooltip(pill) for pill in groups(drawn["node:small"], "layer")] == ["max_rows 64", "max_rows 8"]


def test_every_edge_is_drawn_once_and_names_its_tensors_and_types() -> None:
    wires = groups(parsed(TWO), "wire")
    assert [(wire.get("data-from"), wire.get("data-to"), texts(wire)) for wire in wires] == [
        ("input:image", "node:scale", []),  # its box says it
        ("node:scale", "node:small node:large", ["x"]),
        ("node:small", "node:answer", ["label, p"]),
        ("node:large", "node:answer", ["label, p"]),
        ("node:answer", "output:label", ["label"]),
        ("node:small", "output:scores", ["p"]),
    ]
    assert tooltip(wires[1]) == "scale.x: FP32[rows, 64]\n→ small as X\n→ large as X"
    assert tooltip(wires[2]) == "small.label: INT64[rows]\nsmall.p: FP32[rows, 10]\n→ answer"
    assert all(found.get("d") for wire in wires for found in wire.iter(f"{SVG}path"))


def test_every_worker_is_in_the_legend_and_nodes_have_its_colour() -> None:
    root = parsed(TWO)
    keys = groups(root, "key")
    assert [texts(key) for key in keys] == [["front", "gateway"], ["heavy", "2 replicas · grpc://10.0.0.2:7001"]]
    front, heavy = ((key.get("class") or "").removeprefix("key ") for key in keys)
    assert front != heavy
    drawn = by_vertex(root)
    colours = {name: drawn[f"node:{name}"].get("class") for name in ("scale", "small", "large", "answer")}
    assert colours == {
        "scale": f"node {front}",
        "small": f"node {front}",
        "answer": f"node {front}",
        "large": f"node {heavy}",
    }


def test_a_single_worker_needs_no_legend_and_no_name() -> None:
    root = parsed(fused(DIGITS))
    assert groups(root, "key") == []
    assert texts(by_vertex(root)["node:large"]) == ["large", "predict · OnnxPredict"]


def test_a_worker_without_nodes_is_in_the_legend_and_one_named_like_its_node_is_not_named_twice() -> None:
    workers = (Worker(name="gateway", nodes=()), *(Worker(name=one.name, nodes=(one.name,)) for one in DIGITS.nodes))
    root = parsed(Plan(graph=DIGITS, placement="processes", workers=workers, partitions=()))
    assert [key.get("data-worker") for key in groups(root, "key")] == ["gateway", "scale", "small", "large", "answer"]
    assert texts(by_vertex(root)["node:large"]) == ["large", "predict · OnnxPredict"]


def test_a_note_is_a_line_of_its_node_and_makes_room_for_itself() -> None:
    plain, noted = (by_vertex(parsed(TWO, notes))["node:large"] for notes in ({}, {"large": "12 rows/s"}))
    assert texts(noted) == ["large", "predict · OnnxPredict", "12 rows/s", "heavy ×2"]  # noqa: RUF001
    heights = [float(found.find(f"{SVG}rect").get("height", "0")) for found in (plain, noted)]  # pyright: ignore[reportOptionalMemberAccess]
    assert heights[1] > heights[0]


def test_the_picture_is_told_in_words() -> None:
    root = parsed(TWO)
    assert root.findtext(f"{SVG}title") == "digits: placement two · 4 nodes · 2 workers"
    assert root.findtext(f"{SVG}desc") == (
        "Takes image: FP32[rows, 64]. "
        "scale: preprocess, in worker front, takes image. "
        "small: predict, in worker front, takes scale.x. "
        "large: predict, in worker heavy, takes scale.x. "
        "answer: aggregate, in worker front, takes small.label, small.p, large.label, large.p. "
        "Gives label from answer.label, scores from small.p."
    )


def test_the_picture_needs_nothing_but_itself() -> None:
    text = svg(TWO)
    for word in ("<script", "href", "url(", "@import", "@font-face", " id=", "<image", "<foreignObject"):
        assert word not in text
    assert "prefers-color-scheme: dark" in text


def test_the_same_plan_gives_the_same_picture() -> None:
    assert svg(TWO) == svg(TWO)


def boxes(root: ElementTree.Element, word: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of each rectangle of a class, or in a group of it."""
    found = [one for one in root.iter(f"{SVG}rect") if one.get("class") == word]
    found += [one for group in groups(root, word) for one in group.iter(f"{SVG}rect")]
    sides = [[float(one.get(side, "nan")) for side in ("x", "y", "width", "height")] for one in found]
    return [(x, y, x + width, y + height) for x, y, width, height in sides]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to 30 nodes, each fed by up to three before it, with layers, in up to ten workers."""
    count = draw(st.integers(1, 30))
    nodes: list[GraphNode] = []
    for index in range(count):
        feeds = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set[int]()
        names = draw(st.lists(st.sampled_from(["queue", "batch", "timeout", "cache"]), max_size=4, unique=True))
        nodes.append(
            node(
                f"node-{index}" * draw(st.sampled_from([1, 1, 6])) + f"-{index}",
                draw(st.sampled_from(["preprocess", "predict", "aggregate"])),
                "nodes.onnx:OnnxPredict",
                inputs={f"x{feed}": f"{nodes[feed].name}.p" for feed in feeds} or {"x": "in"},
                gives={"label": LABEL, "p": SCORES},
                layers=[LayerSettings(name, {}) for name in names],
            )
        )
    home = [draw(st.integers(0, 9)) for _ in nodes]
    workers = tuple(
        Worker(
            name=f"worker-{worker}", nodes=tuple(one.name for one, at in zip(nodes, home, strict=True) if at == worker)
        )
        for worker in range(10)
    )
    made = graph(
        "random", {"in": IMAGE}, nodes, {f"out{index}": f"{one.name}.label" for index, one in enumerate(nodes)}
    )
    return Plan(graph=made, placement="random", workers=workers, partitions=())


@settings(max_examples=25, deadline=None)
@given(plans())
def test_no_two_boxes_overlap_and_everything_is_within_the_picture(plan: Plan) -> None:
    root = parsed(plan)
    cards = boxes(root, "card") + boxes(root, "end")
    assert len(cards) == 1 + 2 * len(plan.graph.nodes)
    for one, two in combinations(cards, 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    for one, two in combinations(boxes(root, "pill"), 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    for inner in (*boxes(root, "pill"), *boxes(root, "tile")):
        assert any(
            card[0] < inner[0] and card[1] < inner[1] and inner[2] < card[2] and inner[3] < card[3] for card in cards
        )
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert all(0 <= left < right <= width and 0 <= top < bottom <= height for left, top, right, bottom in cards)
    assert all(float(found.get("y", "0")) < height for found in root.iter(f"{SVG}text"))


@given(st.text(min_size=1, max_size=20).filter(lambda name: "." not in name))
def test_whatever_a_name_holds_the_picture_is_well_formed(name: str) -> None:
    drawn = by_vertex(parsed(strange(name)))
    # XML has no control characters, not even escaped, and reads line ends and tabs of attributes as spaces.
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]", "\ufffd", name)
    shown = re.sub(r"[\t\n]", " ", shown)
    assert f"input:{shown}" in drawn
    assert len(drawn) == 4


def test_long_names_are_shortened_in_sight_and_whole_in_the_tooltip() -> None:
    name = "a" * 40 + "-z"
    drawn = by_vertex(parsed(fused(graph("g", {name: IMAGE}, [], {"out": name}))))
    (title, _) = texts(drawn[f"input:{name}"])
    assert len(title) <= 32
    assert title.startswith("aaa")
    assert title.endswith("-z")
    assert name in tooltip(drawn[f"input:{name}"])


def luminance(colour: Sequence[float]) -> float:
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(mode: int) -> None:
    """4.5 to 1, as the Web Content Accessibility Guidelines ask."""
    css = svg(TWO).partition("<style>")[2].partition("</style>")[0].split("@media")[mode]

    def colour(selector: str) -> list[float]:
        (found,) = re.findall(rf"^\.mesh-graph {re.escape(selector)} \{{ (?:fill|color): #(\w{{6}})", css, re.MULTILINE)
        return [int(found[at : at + 2], 16) / 255 for at in (0, 2, 4)]

    (soft,) = re.findall(r"^\.mesh-graph \.soft,.* \{ fill: #(\w{6})", css, re.MULTILINE)
    soft = [int(soft[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    pairs = [(ink, colour(behind)) for ink in (soft, colour("text")) for behind in (".canvas", ".card", ".end")]
    for hue in (colour(f".hue-{number}") for number in range(8)):
        tint = [0.12 * part + 0.88 * below for part, below in zip(hue, colour(".card"), strict=True)]
        pairs.append((hue, tint))
    for ink, behind in pairs:
        light, dark = sorted((luminance(ink), luminance(behind)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
