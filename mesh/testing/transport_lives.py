"""The rules of `check_transport` on how calls, listeners and links live and end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mesh.context import Context
from mesh.errors import DeadlineExceeded, InvalidInput, Overloaded, PlacementError, Unavailable
from mesh.tensors import Tensors
from mesh.testing.doubles import ScriptedHandler
from mesh.testing.transport_bench import ROW, WITHIN_S, TransportBench, echo, node
from mesh.transports import Limits

__all__ = ["LIFE_RULES"]

_SOON_S = 0.05
"""A deadline that is let pass."""
_ROUNDING = 1.05
"""gRPC sends a timeout with two or three digits, rounded up."""


async def deadline(bench: TransportBench) -> None:
    """A deadline crosses as the time that remains; when it passes, the caller is told and the far handler cancelled."""
    script = ScriptedHandler()
    async with bench.serve(node(script), limits=Limits(default_timeout_s=5.0)) as served:
        handler = served.link.handler("predict", "node")
        asked = asyncio.ensure_future(handler(ROW, Context(request_id="r").within(_SOON_S)))
        call = await script.request()
        left_s = call.context.remaining_s()
        bench.hold(left_s is not None and left_s <= _SOON_S * _ROUNDING, f"{left_s} s were left there of {_SOON_S}")
        error = await bench.error(asked)
        bench.hold(isinstance(error, DeadlineExceeded) and error.request_id == "r", f"it ended in {error!r}")
        await call.ended()
        bench.hold(call.cancelled, "the far handler works on")
        late = await bench.error(handler(ROW, Context(deadline=Context().clock.now() - 1.0)))
        bench.hold(isinstance(late, DeadlineExceeded), f"a call whose time had run out ended in {late!r}")
        bench.hold(script.pending == 0, "a call whose time had run out was begun")
        asked = asyncio.ensure_future(handler(ROW, Context()))
        call = await script.request()
        left_s = call.context.remaining_s()
        bench.hold(left_s is not None and left_s <= 5.0 * _ROUNDING, f"a call without a deadline had {left_s} s")
        call.echo()
        await asked


async def cancellation(bench: TransportBench) -> None:
    """Cancelling a call ends it at once and cancels the far handler; its neighbours go on."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        handler = served.link.handler("predict", "node")
        leaving, staying = (asyncio.ensure_future(handler(ROW, Context(request_id=name))) for name in ("a", "b"))
        calls = {call.context.request_id: call for call in [await script.request(), await script.request()]}
        leaving.cancel()
        await asyncio.wait((leaving,), timeout=WITHIN_S)
        bench.hold(leaving.cancelled(), "a cancelled call goes on")
        await calls["a"].ended()
        bench.hold(calls["a"].cancelled, "the far handler works on for a caller that went away")
        calls["b"].echo()
        bench.hold(await staying == ROW, "another call was harmed")


async def many_at_once(bench: TransportBench) -> None:
    """Calls on one link are answered in whatever order they end, each with its own answer."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        handler = served.link.handler("predict", "node")
        asked = [asyncio.ensure_future(handler(Tensors({"x": [index]}), Context())) for index in range(50)]
        calls = [await script.request() for _ in asked]
        for call in reversed(calls):
            call.echo()
        answers = await asyncio.gather(*asked)
        bench.hold(answers == [Tensors({"x": [index]}) for index in range(50)], "answers were mixed up")


async def overload(bench: TransportBench) -> None:
    """Calls beyond `max_in_flight` are Overloaded at once, with a hint; room comes back with each call that ends."""
    script = ScriptedHandler()
    async with bench.serve(node(script), limits=Limits(max_in_flight=2)) as served:
        handler = served.link.handler("predict", "node")
        asked = {name: asyncio.ensure_future(handler(ROW, Context(request_id=name))) for name in ("a", "b")}
        calls = {call.context.request_id: call for call in [await script.request(), await script.request()]}
        error = await bench.error(handler(ROW, Context(request_id="r")))
        bench.hold(isinstance(error, Overloaded) and error.request_id == "r", f"the third ended in {error!r}")
        bench.hold(isinstance(error, Overloaded) and error.retry_after_s > 0, "there is no hint when to come back")
        asked["a"].cancel()
        await calls["a"].ended()
        calls["b"].fail(InvalidInput("bad"))
        await bench.error(asked["b"])
        for _ in range(3):
            again = asyncio.ensure_future(handler(ROW, Context()))
            (await script.request()).echo()
            bench.hold(await again == ROW, "there is no room although the calls have ended")


async def address_in_use(bench: TransportBench) -> None:
    """An address that is taken is refused, and its listener goes on; what is no address is refused as well."""
    async with bench.serve(node(echo)) as served:
        for address in (served.listener.address, "nonsense", "nonsense://x"):
            try:
                other = await bench.transport.listen(address, [node(echo)], Limits())
            except PlacementError:
                continue
            await other.drain(0)
            bench.hold(False, f"a second listener took {address}")
        answer = await served.link.handler("predict", "node")(ROW, Context())
        bench.hold(answer == ROW, "the first listener was harmed")


async def drain(bench: TransportBench) -> None:
    """Draining finishes what was accepted and refuses what is new as Unavailable; doing it again is harmless."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        handler = served.link.handler("predict", "node")
        bench.hold(await served.link.ready(), "a listener is not ready")
        asked = asyncio.ensure_future(handler(ROW, Context()))
        call = await script.request()
        draining = asyncio.ensure_future(served.listener.drain(WITHIN_S))
        await bench.until(served.link.ready, False, "a draining listener says that it is ready")
        bench.hold(not draining.done(), "draining did not wait for the call in flight")
        error = await bench.error(handler(ROW, Context(request_id="r")))
        bench.hold(isinstance(error, Unavailable) and error.request_id == "r", f"a new call ended in {error!r}")
        call.echo()
        bench.hold(await asked == ROW, "the call in flight was not finished")
        await draining
        await served.listener.drain(0)
        error = await bench.error(handler(ROW, Context()))
        bench.hold(isinstance(error, Unavailable), f"a call after the end ended in {error!r}")


async def cut_off(bench: TransportBench) -> None:
    """When the grace is over, calls in flight end as Unavailable at once, and their handlers are cancelled."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        asked = asyncio.ensure_future(served.link.handler("predict", "node")(ROW, Context(request_id="r")))
        call = await script.request()
        await served.listener.drain(0)
        error = await bench.error(asked)
        found = (type(error), error.node, error.request_id)
        bench.hold(found == (Unavailable, "node", "r"), f"the call in flight ended in {found}")
        await call.ended()
        bench.hold(call.cancelled, "the handler works on")


async def hang_up(bench: TransportBench) -> None:
    """Closing a link ends its calls as Unavailable and cancels the far handler; closing twice is harmless."""
    script = ScriptedHandler()
    async with bench.serve(node(script)) as served:
        other = await bench.transport.dial(served.listener.address, Limits())
        handler = served.link.handler("predict", "node")
        asked = asyncio.ensure_future(handler(ROW, Context(request_id="r")))
        call = await script.request()
        await served.link.close()
        error = await bench.error(asked)
        bench.hold(isinstance(error, Unavailable) and error.request_id == "r", f"the call in flight ended in {error!r}")
        await call.ended()
        bench.hold(call.cancelled, "the far handler works on")
        await served.link.close()
        error = await bench.error(handler(ROW, Context()))
        bench.hold(isinstance(error, Unavailable), f"a call on a closed link ended in {error!r}")
        bench.hold(not await served.link.ready(), "a closed link says that it is ready")
        asked = asyncio.ensure_future(other.handler("predict", "node")(ROW, Context()))
        (await script.request()).echo()
        bench.hold(await asked == ROW, "another link was harmed")
        await other.close()


async def nobody_there(bench: TransportBench) -> None:
    """A link may be made before anybody listens; it works once somebody does, also when they went and came back."""
    first = await bench.transport.listen(bench.address_for("nobody"), [node(echo)], Limits())
    address = first.address
    await first.drain(0)
    link = await bench.transport.dial(address, Limits())
    error = await bench.error(link.handler("predict", "node")(ROW, Context(request_id="r")))
    bench.hold(isinstance(error, Unavailable) and error.request_id == "r", f"it ended in {error!r}")
    bench.hold(not await link.ready(), "nobody is there, and it says that it is ready")
    for _ in range(2):
        listener = await bench.transport.listen(address, [node(echo)], Limits())
        await first.drain(0)  # long gone: this must not touch the new one
        await bench.until(link.ready, True, "a link did not find a listener that came back")
        bench.hold(await link.handler("predict", "node")(ROW, Context()) == ROW, "it answers otherwise")
        await listener.drain(0)
    await link.close()


LIFE_RULES: Sequence[Callable[[TransportBench], Awaitable[None]]] = (
    deadline,
    cancellation,
    many_at_once,
    overload,
    address_in_use,
    drain,
    cut_off,
    hang_up,
    nobody_there,
)
