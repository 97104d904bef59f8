"""Asking a running mesh, and holding answers against what was expected."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np

from mesh.context import Context
from mesh.errors import RequestError
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.transports import GrpcTransport, Limits
from mesh.transports.contract import GRAPH
from tests.harness.meshes import Result

__all__ = ["asking", "assert_alike", "result_of"]


@asynccontextmanager
async def asking(address: str, graph: str = "") -> AsyncGenerator[Handler[Tensors]]:
    """The graph that answers at an address, as a handler."""
    link = await GrpcTransport().dial(address, Limits())
    try:
        yield link.handler(GRAPH, graph)
    finally:
        await link.close()


async def result_of(handler: Handler[Tensors], request: Tensors, context: Context) -> Result:
    """The answer or the error, as a value."""
    try:
        return await handler(request, context)
    except RequestError as error:
        return error


def assert_alike(found: Result, expected: Result, tolerance: float) -> None:
    """Equal, but for the last bits of numbers."""
    if isinstance(expected, RequestError):
        assert found == expected
        return
    assert isinstance(found, Tensors), f"not answered: {found!r}"
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if array.dtype.kind in "fV":
            assert found[name].dtype == array.dtype, name
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)
        else:
            assert Tensors({name: found[name]}) == Tensors({name: array})
