"""What is asked to be run later is held against the graph before anything is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput, NotFound
from mesh.hosts import AllowedHosts
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.records import Callback, Lane
from mesh.jobs.submission import MAX_KEY, MAX_TIMEOUT_S, Submissions
from mesh.signature import TensorSpec
from mesh.tensors import Tensors
from mesh.transports import Limits
from mesh.transports.codec import encode_tensors
from mesh.v1 import call_pb2, graph_service_pb2, job_service_pb2

SPECS = {"x": TensorSpec("FP32", ("rows", 2)), "name": TensorSpec("BYTES", ("rows",))}
GOOD = Tensors({"x": np.zeros((3, 2), np.float32), "name": [b"a", b"b", b"c"]})
NOW = 1_800_000_000.25


def reading(*hosts: str, limits: Limits | None = None) -> Submissions:
    settings = CallbackSettings(hosts=AllowedHosts(hosts))
    return Submissions("digits", SPECS, limits=limits or Limits(), callbacks=settings)


def asked(inputs: Tensors = GOOD, *, graph: str = "", **others: Any) -> job_service_pb2.SubmitJobRequest:
    options = call_pb2.CallOptions(request_id="mine")
    run = graph_service_pb2.RunRequest(graph=graph, inputs=encode_tensors(inputs), options=options)
    return job_service_pb2.SubmitJobRequest(request=run, **others)


def test_what_fits_becomes_work() -> None:
    request = asked(
        graph="digits",
        idempotency_key="k" * MAX_KEY,
        priority=job_service_pb2.JOB_PRIORITY_HIGH,
        timeout=Duration(seconds=2, nanos=500_000_000),
        callback=job_service_pb2.JobCallback(url="https://hook.example/x"),
    )
    request.request.options.report_timings = True
    request.request.options.parameters["threshold"].double_value = 0.5
    work = reading("hook.example").read(request, NOW)
    assert work.inputs == GOOD
    assert (work.graph, work.lane, work.request_id, work.report) == ("digits", Lane.HIGH, "mine", True)
    assert work.deadline == NOW + 2.5
    assert work.parameters == {"threshold": 0.5}
    assert work.callback == Callback(url="https://hook.example/x")


def test_what_nobody_said_has_its_default() -> None:
    request = asked()
    request.request.options.request_id = ""
    work = reading().read(request, NOW)
    assert (work.lane, work.deadline, work.callback, work.report) == (Lane.NORMAL, None, None, False)
    assert work.request_id
    assert work.request_id != reading().read(request, NOW).request_id


@pytest.mark.parametrize(
    ("inputs", "told", "tensor"),
    [
        ({"x": GOOD["x"]}, r"'name' is missing; it takes BYTES\[rows\]", "name"),
        ({**GOOD, "y": GOOD["x"]}, "'y' is not taken; there is: x, name", "y"),
        ({**GOOD, "x": np.zeros((3, 2))}, "'x' has datatype FP64 where FP32 is needed", "x"),
        ({**GOOD, "x": np.zeros((3, 4), np.float32)}, r"'x' has shape \[3, 4\] where FP32\[rows, 2\] is needed", "x"),
        ({**GOOD, "name": [b"a"]}, "'name' has 1 rows where 'x' has 3", "name"),
    ],
)
def test_inputs_that_are_not_the_graphs_are_told_as_run_tells_them(
    inputs: dict[str, Any], told: str, tensor: str
) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        reading().read(asked(Tensors(inputs)), NOW)
    assert (caught.value.tensor, caught.value.request_id) == (tensor, "mine")


def test_data_that_is_not_what_its_shape_says_is_refused() -> None:
    request = asked()
    request.request.inputs[0].data = b"abc"
    with pytest.raises(InvalidInput, match="'x' has 3 bytes of data where") as caught:
        reading().read(request, NOW)
    assert caught.value.request_id == "mine"


def test_more_bytes_than_a_call_carries_are_refused() -> None:
    with pytest.raises(InvalidInput, match="takes 39 bytes of tensors where at most 16 are carried"):
        reading(limits=Limits(max_message_bytes=2)).read(asked(), NOW)


def test_another_graph_is_not_found() -> None:
    with pytest.raises(NotFound, match="no graph is called 'letters' here; there is: digits"):
        reading().read(asked(graph="letters"), NOW)


def test_a_key_is_bounded() -> None:
    with pytest.raises(InvalidInput, match="longer than 256 characters"):
        reading().read(asked(idempotency_key="k" * (MAX_KEY + 1)), NOW)


def test_an_unknown_priority_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no priority has the number 9"):
        reading().read(asked(priority=9), NOW)


@pytest.mark.parametrize("count", [65, 1000])
def test_parameters_are_bounded_as_in_run(count: int) -> None:
    request = asked()
    for index in range(count):
        request.request.options.parameters[f"p{index}"].bool_value = True
    with pytest.raises(InvalidInput, match=f"{count} parameters; at most 64 are taken"):
        reading().read(request, NOW)


def test_a_request_id_is_bounded_as_in_run() -> None:
    request = asked()
    request.request.options.request_id = "i" * 129
    with pytest.raises(InvalidInput, match="request_id is longer than 128"):
        reading().read(request, NOW)


@given(st.integers(-(10**12), 10**12), st.integers(-999_999_999, 999_999_999))
def test_a_timeout_is_above_zero_and_bounded(whole: int, nanos: int) -> None:
    request = asked(timeout=Duration(seconds=whole, nanos=nanos))
    timeout_s = whole + nanos / 1e9
    if 0 < timeout_s <= MAX_TIMEOUT_S:
        deadline = reading().read(request, NOW).deadline
        assert deadline == pytest.approx(NOW + timeout_s, rel=1e-12)
    else:
        with pytest.raises(InvalidInput, match="timeout is above zero and at most 366 days"):
            reading().read(request, NOW)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"url": "https://other.example/"}, "callbacks to other.example:443 are not allowed"),
        ({"listener": "grpc://hook.example:9"}, "callbacks to hook.example:9 are not allowed"),
        ({"url": "ftp://hook.example/"}, "cannot be read"),
        ({}, "either a url or a listener"),
    ],
)
def test_a_callback_that_is_not_allowed_is_refused_before_anything_is_stored(target: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        reading("hook.example").read(asked(callback=job_service_pb2.JobCallback(**target)), NOW)
    assert caught.value.request_id == "mine"
