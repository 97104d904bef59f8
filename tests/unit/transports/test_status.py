from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata
from grpc_status.rpc_status import to_status
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import Context
from mesh.errors import (
    REQUEST_ERRORS,
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    NotFound,
    Overloaded,
    RequestError,
    Unavailable,
)
from mesh.tensors import Tensors
from mesh.transports import Endpoint, GrpcTransport, Limits
from mesh.transports.status import decode_error, encode_error, error_of_call, status_of
from mesh.v1 import error_pb2

texts = st.text(max_size=40)


@st.composite
def request_errors(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> RequestError:
    """Any error that a node may raise."""
    made: Any = draw(st.sampled_from(sorted(REQUEST_ERRORS.values(), key=str)))
    fields: dict[str, Any] = {"node": draw(texts), "tensor": draw(texts), "request_id": draw(texts)}
    fields["row"] = draw(st.none() | st.integers(-(2**63), 2**63 - 1))
    if made in (Overloaded, Unavailable):
        fields["retry_after_s"] = draw(st.floats())
    return made(draw(text), **fields)


LONG = st.sampled_from(["a", "é", "\U0001f600", "\0", "%", "\n"]).flatmap(
    lambda character: st.integers(0, 3000).map(lambda count: character * count)
)


@given(request_errors(st.one_of(texts, LONG)))
def test_errors_come_back_equal(error: RequestError) -> None:
    found = decode_error(error_pb2.ErrorDetail.FromString(encode_error(error).SerializeToString()))
    assert found == error
    assert hash(found) == hash(error)


@given(request_errors(LONG))
def test_errors_fit_into_the_headers_of_a_call(error: RequestError) -> None:
    error.node = error.tensor = error.request_id = "\U0001f600" * 128
    status: Any = to_status(status_of(error))
    percent_encoded = sum(3 if byte < 0x20 or byte > 0x7E or byte == 0x25 else 1 for byte in status.details.encode())
    base64_encoded = sum(len(value) * 4 / 3 for _, value in status.trailing_metadata)
    assert percent_encoded + base64_encoded + 500 < 8192


@given(st.lists(request_errors(st.one_of(texts, LONG)), min_size=1, max_size=8))
async def test_errors_cross_a_wire_equal(errors: list[RequestError]) -> None:
    async def fail(request: Tensors, context: Context, /) -> Tensors:
        raise errors[int(request["index"][0])]

    transport = GrpcTransport()
    listener = await transport.listen("grpc://127.0.0.1:0", [Endpoint(kind="graph", name="g", handler=fail)], Limits())
    link = await transport.dial(listener.address, Limits())
    try:
        for index, error in enumerate(errors):
            with pytest.raises(type(error)) as caught:
                await link.handler("graph", "g")(Tensors({"index": [index]}), Context(request_id="r"))
            error.request_id = error.request_id or "r"
            assert caught.value == error
    finally:
        await link.close()
        await listener.drain(0)


def call_error(code: grpc.StatusCode, details: str = "secret", trailers: dict[str, bytes] | None = None) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*(trailers or {}).items()), details)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, NotFound),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.UNKNOWN, NodeFailed),
        (grpc.StatusCode.DATA_LOSS, NodeFailed),
    ],
)
def test_the_status_of_another_server_is_told_without_its_own_words(
    code: grpc.StatusCode, expected: type[RequestError]
) -> None:
    found = error_of_call(call_error(code))
    assert type(found) is expected
    assert "secret" not in found.text
    assert not isinstance(found, Overloaded) or found.retry_after_s > 0


def test_grpcs_refusal_of_a_large_message_is_invalid_input() -> None:
    refusal = call_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 4)")
    assert isinstance(error_of_call(refusal), InvalidInput)


@pytest.mark.parametrize(
    "value", [b"\xff\xff", b"", Status(code=14).SerializeToString()], ids=["junk", "empty", "bare"]
)
def test_details_that_are_not_ours_are_passed_over(value: bytes) -> None:
    found = error_of_call(call_error(grpc.StatusCode.UNAVAILABLE, trailers={"grpc-status-details-bin": value}))
    assert isinstance(found, Unavailable)


def test_an_error_of_a_later_version_is_a_failure() -> None:
    found = decode_error(error_pb2.ErrorDetail(code="TEAPOT", text="short and stout"))
    assert found == NodeFailed("short and stout")
