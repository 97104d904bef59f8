from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import DeadlineExceeded, InvalidInput, PlacementError
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedHandler, settle
from mesh.transports import Endpoint, InprocTransport, Limits, Link

ONE = Tensors({"x": np.ones((1, 2), np.float32)})


async def linked(script: ScriptedHandler, *, strict: bool = False, limits: Limits | None = None) -> Link:
    transport = InprocTransport(strict=strict)
    endpoint = Endpoint(kind="predict", name="node", handler=script)
    await transport.listen("inproc://a", [endpoint], limits or Limits())
    return await transport.dial("inproc://a", limits or Limits())


async def test_arrays_are_passed_by_reference_and_in_strict_mode_through_the_codec() -> None:
    for strict in (False, True):
        script = ScriptedHandler()
        link = await linked(script, strict=strict)
        asked = asyncio.ensure_future(link.handler("predict", "node")(ONE, Context()))
        call = await script.request()
        assert (call.request["x"] is ONE["x"]) is not strict
        call.echo()
        assert await asked == ONE


async def test_strict_mode_shows_what_only_a_wire_would_refuse() -> None:
    long_name = Tensors({"n" * 209: [1]})
    script = ScriptedHandler()
    link = await linked(script, strict=True)
    with pytest.raises(InvalidInput, match="1 to 208 characters") as caught:
        await link.handler("predict", "node")(long_name, Context(request_id="r"))
    assert (caught.value.node, caught.value.request_id) == ("node", "r")


@pytest.mark.parametrize("strict", [False, True])
async def test_deadlines_are_those_of_the_callers_clock(strict: bool) -> None:
    clock = ManualClock()
    script = ScriptedHandler()
    link = await linked(script, strict=strict, limits=Limits(default_timeout_s=7.0))
    asked = asyncio.ensure_future(link.handler("predict", "node")(ONE, Context(clock=clock)))
    call = await script.request()
    assert (call.context.clock, call.context.deadline) == (clock, clock.now() + 7.0)
    await clock.advance(6.9)
    assert not asked.done()
    await clock.advance(0.2)
    assert call.cancelled
    with pytest.raises(DeadlineExceeded):
        await asked


async def test_transports_do_not_know_each_others_names() -> None:
    one, other = InprocTransport(), InprocTransport()
    listener = await one.listen("inproc://a", [], Limits())
    await other.listen("inproc://a", [], Limits())
    with pytest.raises(PlacementError, match="in use"):
        await one.listen("inproc://a", [], Limits())
    await listener.drain(0)
    assert await (await other.dial("inproc://a", Limits())).ready()
    assert not await (await one.dial("inproc://a", Limits())).ready()


@pytest.mark.parametrize("address", ["", "inproc:", "inproc://", "grpc://a:1"])
async def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(PlacementError, match="no address"):
        await InprocTransport().listen(address, [], Limits())
    with pytest.raises(PlacementError, match="no address"):
        await InprocTransport().dial(address, Limits())


async def test_a_caller_that_leaves_while_the_link_is_closed_is_cancelled() -> None:
    script = ScriptedHandler()
    link = await linked(script)
    asked = asyncio.ensure_future(link.handler("predict", "node")(ONE, Context()))
    await script.request()
    closing = asyncio.ensure_future(link.close())
    asked.cancel()
    await settle()
    assert asked.cancelled()
    await closing
