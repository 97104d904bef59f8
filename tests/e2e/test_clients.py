"""A foreign client, with nothing but grpcio and the generated stubs: what it is told when it gets things wrong.

What it does right is on the page: see test_clients_page.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from mesh.v1 import (
    call_pb2,
    error_pb2,
    graph_service_pb2,
    graph_service_pb2_grpc,
    predict_service_pb2,
    predict_service_pb2_grpc,
    preprocess_service_pb2,
    preprocess_service_pb2_grpc,
    tensor_pb2,
)
from tests.harness.processes import DEADLINE_S, MeshUp, StartMesh

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

Ask = Callable[[list[tensor_pb2.Tensor]], Any]


@pytest.fixture(scope="module")
def mesh(start_shared_mesh: StartMesh) -> MeshUp:
    return start_shared_mesh("tests/e2e/meshes/limited.yaml")


@pytest.fixture(scope="module")
def channel(mesh: MeshUp) -> Generator[grpc.Channel]:
    with grpc.insecure_channel(mesh.ready().removeprefix("grpc://")) as channel:
        yield channel


def text(
    data: bytes,
    rows: int = 1,
    *,
    name: str = "text",
    shape: list[int] | None = None,
    datatype: tensor_pb2.Datatype.ValueType = tensor_pb2.DATATYPE_BYTES,
) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(name=name, datatype=datatype, shape=shape or [rows, 1], data=data)


def element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


GOOD = text(element(b"fine"))
ZEROS = np.zeros(1, np.float32).tobytes()
WRONG = {
    "datatype": ([text(ZEROS, datatype=tensor_pb2.DATATYPE_FP32)], "text", "has datatype FP32"),
    "no datatype": ([text(element(b"fine"), datatype=tensor_pb2.DATATYPE_UNSPECIFIED)], "text", "no datatype"),
    "rank": ([text(element(b"fine"), shape=[1])], "text", "has shape [1]"),
    "size": ([text(element(b"a") + element(b"b"), shape=[1, 2])], "text", "has shape [1, 2]"),
    "negative size": ([text(element(b"fine"), shape=[-1, 1])], "text", "impossible shape"),
    "overflow": ([text(b"", shape=[1 << 62, 1 << 62])], "text", "impossible shape"),
    "missing": ([], "text", "is missing"),
    "unknown": ([GOOD, text(element(b"fine"), name="txt")], "txt", "is not taken"),
    "twice": ([GOOD, GOOD], "text", "comes twice"),
    "cut off in a length": ([text(element(b"fine")[:3])], "text", "too few"),
    "cut off in an element": ([text(element(b"fine")[:-1])], "text", "cut off"),
    "bytes left over": ([text(element(b"fine") + b"!")], "text", "after its last element"),
    "too large": ([text(element(bytes(65 << 10)))], "text", "are carried"),
}
KNOWN_NODE = {"Run": "", "Preprocess": "lower", "Predict": "sentiment"}
"""Method -> the node that its errors name; the graph's own edge has none."""


def methods(channel: grpc.Channel) -> dict[str, Ask]:
    graph = graph_service_pb2_grpc.GraphServiceStub(channel)
    preprocess = preprocess_service_pb2_grpc.PreprocessServiceStub(channel)
    predict = predict_service_pb2_grpc.PredictServiceStub(channel)
    options = call_pb2.CallOptions(request_id="mine")
    return {
        "Run": lambda inputs: graph.Run(
            graph_service_pb2.RunRequest(inputs=inputs, options=options), timeout=DEADLINE_S
        ),
        "Preprocess": lambda inputs: preprocess.Preprocess(
            preprocess_service_pb2.PreprocessRequest(inputs=inputs, options=options), timeout=DEADLINE_S
        ),
        "Predict": lambda inputs: predict.Predict(
            predict_service_pb2.PredictRequest(inputs=inputs, options=options), timeout=DEADLINE_S
        ),
    }


def detail_of(error: grpc.RpcError) -> error_pb2.ErrorDetail:
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    detail = error_pb2.ErrorDetail()
    assert status.details[0].Unpack(detail)
    return detail


@pytest.mark.parametrize("method", KNOWN_NODE)
@pytest.mark.parametrize("what", WRONG)
def test_bad_input_is_an_invalid_argument_that_names_node_and_tensor(
    channel: grpc.Channel, method: str, what: str
) -> None:
    inputs, tensor, told = WRONG[what]
    with pytest.raises(grpc.RpcError) as raised:
        methods(channel)[method](inputs)
    error: Any = raised.value
    detail = detail_of(error)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert detail.code == "INVALID_ARGUMENT"
    assert detail.tensor == tensor
    # What the whole graph takes is checked at its edge, but for its size, which is a matter of the node that takes it.
    assert detail.node == ("lower" if method == "Run" and what == "too large" else KNOWN_NODE[method])
    assert told in detail.text
    assert detail.request_id == "mine"
    methods(channel)[method]([GOOD])


def test_a_bad_row_is_named(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        methods(channel)["Run"]([text(element(b"fine") + element(b"\xff"), rows=2)])
    detail = detail_of(raised.value)
    assert (detail.code, detail.node, detail.tensor, detail.row) == ("INVALID_ARGUMENT", "lower", "text", 1)


def test_what_is_no_protobuf_is_an_invalid_argument(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/mesh.v1.GraphService/Run")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"\xff" * 32, timeout=DEADLINE_S)
    assert detail_of(raised.value).code == "INVALID_ARGUMENT"


def test_a_message_beyond_every_bound_is_refused_by_grpc_itself(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        methods(channel)["Run"]([text(element(bytes(2 << 20)))])
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_graph_or_node_that_is_not_there_is_not_found(channel: grpc.Channel) -> None:
    graph = graph_service_pb2_grpc.GraphServiceStub(channel)
    predict = predict_service_pb2_grpc.PredictServiceStub(channel)
    for ask in (
        lambda: graph.Run(graph_service_pb2.RunRequest(graph="nope", inputs=[GOOD]), timeout=DEADLINE_S),
        lambda: graph.Describe(graph_service_pb2.DescribeRequest(graph="nope"), timeout=DEADLINE_S),
        lambda: predict.Predict(predict_service_pb2.PredictRequest(node="lower", inputs=[GOOD]), timeout=DEADLINE_S),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            ask()
        assert detail_of(raised.value).code == "NOT_FOUND"


def test_a_bad_batch_of_a_stream_is_answered_with_its_error_and_the_stream_goes_on(channel: grpc.Channel) -> None:
    def batch(request_id: str, inputs: list[tensor_pb2.Tensor]) -> predict_service_pb2.PredictStreamRequest:
        options = call_pb2.CallOptions(request_id=request_id)
        request = predict_service_pb2.PredictRequest(inputs=inputs, options=options)
        return predict_service_pb2.PredictStreamRequest(request=request)

    sent = [batch("first", [GOOD]), batch("second", []), batch("third", [GOOD])]
    stub = predict_service_pb2_grpc.PredictServiceStub(channel)
    found = {one.request_id: one for one in stub.PredictStream(iter(sent), timeout=DEADLINE_S)}
    assert {name: one.WhichOneof("result") for name, one in found.items()} == {
        "first": "response",
        "second": "error",
        "third": "response",
    }
    assert (found["second"].error.node, found["second"].error.tensor) == ("sentiment", "text")


def test_a_stream_of_a_graph_ends_with_its_error(channel: grpc.Channel) -> None:
    stub = graph_service_pb2_grpc.GraphServiceStub(channel)
    request = graph_service_pb2.RunRequest(inputs=[text(element(b"\xff"))])
    events = stub.RunStream(graph_service_pb2.RunStreamRequest(request=request), timeout=DEADLINE_S)
    failed = [event.error for event in events if event.WhichOneof("event") == "error"]
    assert [(error.code, error.node) for error in failed] == [("INVALID_ARGUMENT", "lower")]


def test_a_service_that_is_not_there_is_unknown_to_health(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="mesh.v1.CacheService"), timeout=DEADLINE_S)
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_a_watcher_hears_that_the_mesh_leaves(start_mesh: StartMesh) -> None:
    mesh = start_mesh("tests/e2e/meshes/slow.yaml")
    with grpc.insecure_channel(mesh.ready().removeprefix("grpc://")) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        heard = stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        assert next(heard).status == health_pb2.HealthCheckResponse.SERVING
        mesh.signal(signal.SIGTERM)
        assert next(heard).status == health_pb2.HealthCheckResponse.NOT_SERVING
        heard.cancel()
    assert mesh.wait() == 0
