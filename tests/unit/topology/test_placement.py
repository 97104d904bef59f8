"""Placements: every mistake in its place, and plans that call each piece once and never in a circle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import PlacementError
from mesh.signature import TensorSpec
from mesh.topology import Graph, GraphLimits, GraphNode, Partition, Plan, Worker, edge_node
from mesh.topology.placement import plan_of
from mesh.topology.source import Source
from mesh.topology.spec import HeaderFile, Topology, WorkerFile
from tests.unit.topology.given import GOOD, changed, compiled, told

WORKERS = (
    "    front: {nodes: [scale, small, answer]}\n"
    '    heavy: {nodes: [large], address: "grpc://127.0.0.1:7001", replicas: 2}\n'
)
NODES_HERE = "there is: scale, small, large, answer"
NO_ADDRESS = "is no address: write grpc://host:port or unix:/absolute/path"
ALL = "scale, small, large, answer"


def placed(workers: str) -> str:
    """The good topology with other workers, from line 28 on."""
    return changed(WORKERS, workers)


@pytest.mark.parametrize(
    ("workers", "problem"),
    [
        (
            "    front: {nodes: [scale, small]}\n    heavy: {nodes: [large]}\n",
            "27:3: placement 'two' gives no worker to 'answer' (name each node under one worker)",
        ),
        (
            "    front: {nodes: [scale]}\n",
            "27:3: placement 'two' gives no worker to 'small', 'large', 'answer' (name each node under one worker)",
        ),
        (f"    front: {{nodes: [{ALL}, scale]}}\n", "28:50: node 'scale' is with worker 'front' already"),
        (
            f"    front: {{nodes: [{ALL}]}}\n    b: {{nodes: [large]}}\n",
            "29:17: node 'large' is with worker 'front' already",
        ),
        (
            "    front: {nodes: [scale, small, large, answr]}\n",
            "28:42: no node is called 'answr' (did you mean 'answer'?)",
        ),
        (f"    front: {{nodes: [{ALL}, zzz]}}\n", f"28:50: no node is called 'zzz' ({NODES_HERE})"),
        (f"    front: {{nodes: [{ALL}, image]}}\n", "28:50: 'image' is an input of the graph: workers run nodes"),
        (
            f"    front: {{nodes: [{ALL}]}}\n    b: {{nodes: []}}\n",
            "29:16: worker 'b' has no nodes: only the first, the gateway, may be without",
        ),
        (
            "    front: {nodes: [scale, small], replicas: 3}\n    front-1: {nodes: [large, answer]}\n",
            "29:5: 'front-1' is what a replica of worker 'front' is called (choose another name)",
        ),
        (
            "    front-0: {nodes: [scale, small]}\n    front: {nodes: [large, answer], replicas: 2}\n",
            "28:5: 'front-0' is what a replica of worker 'front' is called (choose another name)",
        ),
    ],
)
def test_a_worker_that_cannot_be_is_told(workers: str, problem: str) -> None:
    assert told(placed(workers)) == [problem]


def test_a_node_that_is_misspelled_is_not_told_to_be_missing_too_and_what_else_is_missing_is() -> None:
    assert told(placed("    front: {nodes: [scale, small, lrge]}\n")) == [
        "27:3: placement 'two' gives no worker to 'answer' (name each node under one worker)",
        "28:35: no node is called 'lrge' (did you mean 'large'?)",
    ]


def test_a_placement_is_not_blamed_for_nodes_that_are_wrong_or_workers_that_are_not_understood() -> None:
    assert told(changed("    with: {add: 100}\n", "    with: 5\n")) == ["18:11: 'with' has to be a mapping, not 5"]
    assert told(placed("    front: {nodes: [scale, small]}\n    heavy: {node: [large]}\n")) == [
        "29:13: 'node' is not taken here (did you mean 'nodes'?)"
    ]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("10.0.0.1:7001", f"'10.0.0.1:7001' {NO_ADDRESS}"),
        ("http://a:1", f"'http://a:1' {NO_ADDRESS}"),
        ("GRPC://a:1", f"'GRPC://a:1' {NO_ADDRESS}"),
        ("grpc://a", f"'grpc://a' {NO_ADDRESS}"),
        ("grpc://:1", f"'grpc://:1' {NO_ADDRESS}"),
        ("grpc://a:1/x", f"'grpc://a:1/x' {NO_ADDRESS}"),
        ("grpc://::1:7001", f"'grpc://::1:7001' {NO_ADDRESS}"),
        ("grpc://a b:1", f"'grpc://a b:1' {NO_ADDRESS}"),
        ("grpc://a:999999", f"'grpc://a:999999' {NO_ADDRESS}"),
        ("grpc://a:70000", "port 70000 is past the last one, 65535"),
        ("unix:relative", f"'unix:relative' {NO_ADDRESS}"),
        ("unix:///abs", f"'unix:///abs' {NO_ADDRESS}"),
        ("inproc://x", f"'inproc://x' {NO_ADDRESS}"),
        ("", f"'' {NO_ADDRESS}"),
        (f"unix:/{'x' * 100}", "the path of a unix socket has at most 100 bytes"),
        (f"unix:/{'é' * 50}", "the path of a unix socket has at most 100 bytes"),
    ],
)
def test_what_is_no_address_is_told(address: str, problem: str) -> None:
    assert told(changed("grpc://127.0.0.1:7001", address)) == [f"29:38: 'address': {problem}"]


@pytest.mark.parametrize(
    "address", ["grpc://a:1", "grpc://[::1]:7001", "grpc://10.0.0.1:65534", "grpc://h-1.example:1"]
)
def test_an_address_is_taken_as_it_is_written(address: str) -> None:
    plan = compiled(changed("grpc://127.0.0.1:7001", address)).plan("two")
    assert plan.worker("heavy").address == address


@pytest.mark.parametrize(
    ("front", "heavy", "problem"),
    [
        (
            "address: 'unix:/a', replicas: 2",
            "replicas: 2",
            "28:66: replicas of one host need a TCP address (they take the ports that follow), or none",
        ),
        ("address: 'unix:/a'", "address: 'unix:/a'", "29:46: worker 'front' listens there already (at unix:/a)"),
        (
            "address: 'grpc://a:7000'",
            "address: 'grpc://a:7000'",
            "29:46: worker 'front' listens there already (at grpc://a:7000)",
        ),
        (
            "address: 'grpc://a:7000'",
            "address: 'grpc://a:07000'",
            "29:46: worker 'front' listens there already (at grpc://a:7000)",
        ),
        (
            "address: 'grpc://a:7000'",
            "address: 'grpc://A:7000'",
            "29:46: worker 'front' listens there already (at grpc://a:7000)",
        ),
        (
            "address: 'grpc://a:7000', replicas: 3",
            "address: 'grpc://a:7002'",
            "29:46: worker 'front' listens there already (at grpc://a:7002)",
        ),
        (
            "address: 'grpc://a:7002'",
            "address: 'grpc://a:7000', replicas: 3",
            "29:46: worker 'front' listens there already (at grpc://a:7002 with one of its replicas)",
        ),
        (
            "address: 'grpc://a:0'",
            "address: 'grpc://a:0'",
            "29:46: port 0 lets the operating system choose, so nobody would know where to call "
            "(only the first worker, the gateway, may have it)",
        ),
        (
            "address: 'grpc://a:7000'",
            "address: 'grpc://a:65534', replicas: 3",
            "29:46: 3 replicas take ports 65534 to 65536, and the last one is 65535",
        ),
    ],
)
def test_addresses_that_cannot_all_be_listened_at_are_told(front: str, heavy: str, problem: str) -> None:
    text = placed(f"    front: {{nodes: [scale, small], {front}}}\n    heavy: {{nodes: [large, answer], {heavy}}}\n")
    assert told(text) == [problem]


def test_a_worker_without_replicas_keeps_no_names_for_them() -> None:
    assert told(placed("    front: {nodes: [scale, small]}\n    front-0: {nodes: [large, answer]}\n")) == []


def test_addresses_may_be_side_by_side() -> None:
    text = placed(
        "    front: {nodes: [scale], address: 'grpc://a:0'}\n"
        "    b: {nodes: [small], address: 'grpc://a:7000', replicas: 2}\n"
        "    c: {nodes: [large], address: 'grpc://a:7002'}\n"
        "    d: {nodes: [answer], address: 'grpc://b:7000'}\n"
    )
    assert told(text) == []


# Plans.


def test_fused_is_one_worker_with_a_piece_for_each_node_whose_outputs_leave_it() -> None:
    plan = compiled(GOOD).plan("fused")
    names = ("scale", "small", "large", "answer")
    assert plan.workers == (Worker(name="gateway", nodes=names),)
    assert plan.gateway.name == "gateway"
    assert plan.partitions == (
        Partition(worker="gateway", nodes=("scale",), inputs=("image",), outputs=("scale.x",)),
        Partition(worker="gateway", nodes=("small",), inputs=("scale.x",), outputs=("small.label", "small.p")),
        Partition(
            worker="gateway",
            nodes=("large", "answer"),
            inputs=("scale.x", "small.label", "small.p"),
            outputs=("answer.label",),
        ),
    )


def test_processes_is_a_worker_for_each_node_behind_a_gateway_without() -> None:
    plan = compiled(GOOD).plan("processes")
    assert plan.workers == (
        Worker(name="gateway", nodes=()),
        *(Worker(name=name, nodes=(name,)) for name in ("scale", "small", "large", "answer")),
    )
    assert [(piece.name, piece.nodes, piece.inputs, piece.outputs) for piece in plan.partitions] == [
        ("scale/scale", ("scale",), ("image",), ("scale.x",)),
        ("small/small", ("small",), ("scale.x",), ("small.label", "small.p")),
        ("large/large", ("large",), ("scale.x",), ("large.label", "large.p")),
        ("answer/answer", ("answer",), ("small.label", "small.p", "large.label", "large.p"), ("answer.label",)),
    ]


def test_a_placement_of_the_file_is_cut_where_the_flow_leaves_a_worker_and_comes_back() -> None:
    plan = compiled(GOOD).plan("two")
    assert plan.workers == (
        Worker(name="front", nodes=("scale", "small", "answer")),
        Worker(name="heavy", nodes=("large",), address="grpc://127.0.0.1:7001", replicas=2),
    )
    assert [(piece.name, piece.nodes, piece.inputs, piece.outputs) for piece in plan.partitions] == [
        ("front/scale", ("scale",), ("image",), ("scale.x",)),
        ("front/small", ("small",), ("scale.x",), ("small.label", "small.p")),
        ("heavy/large", ("large",), ("scale.x",), ("large.label", "large.p")),
        ("front/answer", ("answer",), ("small.label", "small.p", "large.label", "large.p"), ("answer.label",)),
    ]


def test_a_placement_or_worker_that_is_not_there_is_told_with_what_there_is() -> None:
    made = compiled(GOOD)
    assert made.placements == ["fused", "processes", "two"]
    with pytest.raises(PlacementError, match=r"\At.yaml: no placement is called 'tow' \(did you mean 'two'\?\)\Z"):
        made.plan("tow")
    with pytest.raises(PlacementError, match=r"\(there is: fused, processes, two\)"):
        made.plan("zzz")
    with pytest.raises(PlacementError, match=r"\Aplacement 'two' has no worker 'havy' \(did you mean 'heavy'\?\)\Z"):
        made.plan("two").worker("havy")


def test_a_plan_is_a_value() -> None:
    plan = compiled(GOOD).plan("two")
    assert plan == compiled(GOOD).plan("two")
    assert plan != compiled(GOOD).plan("processes")
    assert "front" in repr(plan)
    with pytest.raises(AttributeError):
        plan.placement = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


SPEC = TensorSpec("FP32", ("rows",))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any acyclic graph, in any assignment of its nodes to workers."""
    names = [f"n{index}" for index in range(draw(st.integers(1, 9)))]
    nodes: list[GraphNode] = []
    for at, name in enumerate(names):
        edges = ["image", *(f"{feed}.{tensor}" for feed in names[:at] for tensor in "xy")]
        inputs = draw(st.lists(st.sampled_from(edges), min_size=1, max_size=4, unique=True))
        nodes.append(
            GraphNode(
                name=name,
                kind="predict",
                uses="module:Class",
                arguments={},
                inputs={f"t{index}": edge for index, edge in enumerate(inputs)},
                takes={},
                gives={"x": SPEC, "y": SPEC},
            )
        )
    given_edges = [f"{name}.{tensor}" for name in names for tensor in "xy"]
    outputs = draw(st.lists(st.sampled_from(given_edges), min_size=1, max_size=4))
    graph = Graph(
        name="any",
        file="t.yaml",
        model_root="/",
        limits=GraphLimits(),
        inputs={"image": SPEC},
        nodes=tuple(nodes),
        outputs={f"o{index}": edge for index, edge in enumerate(outputs)},
    )
    workers: dict[str, list[str]] = {}
    for name in names:
        workers.setdefault(draw(st.sampled_from(["a", "b", "c", "d"])), []).append(name)
    topology = Topology(Source("t.yaml", end=(1, 1)), HeaderFile(mesh="v1", name="any"))
    topology.placements = {"any": {name: WorkerFile(nodes=found) for name, found in workers.items()}}
    return plan_of(graph, topology, draw(st.sampled_from(["any", "any", "any", "fused", "processes"])))


@given(plans())
def test_every_node_is_in_one_piece_of_its_own_worker(plan: Plan) -> None:
    for worker in plan.workers:
        pieces = [node for piece in plan.partitions if piece.worker == worker.name for node in piece.nodes]
        assert sorted(pieces) == sorted(worker.nodes)
    names = [piece.name for piece in plan.partitions]
    assert len(names) == len(set(names))


@given(plans())
def test_pieces_run_in_order_each_once_and_bring_all_that_is_asked(plan: Plan) -> None:
    """Runs the plan: each piece is called once, with what those before it gave."""
    known = {*plan.graph.inputs}
    for piece in plan.partitions:
        assert known.issuperset(piece.inputs), "a piece waits for one that comes after it: a cycle"
        inside = set(piece.inputs)
        for name in piece.nodes:
            node = plan.graph.node(name)
            assert inside.issuperset(node.edges)
            inside |= {f"{name}.{tensor}" for tensor in node.gives}
        assert inside.issuperset(piece.outputs)
        known |= set(piece.outputs)
    assert known.issuperset(plan.graph.outputs.values())


@given(plans())
def test_nothing_crosses_a_link_that_nobody_beyond_it_needs(plan: Plan) -> None:
    for piece in plan.partitions:
        wanted = {edge for node in piece.nodes for edge in plan.graph.node(node).edges}
        assert set(piece.inputs) == {edge for edge in wanted if edge_node(edge) not in piece.nodes}
        assert len(set(piece.inputs)) == len(piece.inputs)
        elsewhere = {edge for other in plan.partitions if other is not piece for edge in other.inputs}
        asked = elsewhere | set(plan.graph.outputs.values())
        assert set(piece.outputs) == {edge for edge in asked if edge_node(edge) in piece.nodes}
        assert len(set(piece.outputs)) == len(piece.outputs)


@given(plans())
def test_what_leaves_a_piece_leaves_it_from_its_exit_and_no_piece_could_be_larger(plan: Plan) -> None:
    home = {name: piece for piece in plan.partitions for name in piece.nodes}
    takers = {name: [node.name for node in plan.graph.nodes if name in node.after] for name in home}
    leaving = {edge_node(edge) for edge in plan.graph.outputs.values()}
    for piece in plan.partitions:
        assert {edge_node(edge) for edge in piece.outputs} <= {piece.exit}
        for name in piece.nodes[:-1]:
            assert name not in leaving
            assert {home[taker].name for taker in takers[name]} == {piece.name}
        ahead = {home[taker].name: home[taker].worker for taker in takers[piece.exit]}
        assert piece.exit in leaving or len(ahead) != 1 or set(ahead.values()) != {piece.worker}
