"""Floods, against the core with everything counted, and against a server on a socket with others beside it."""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from mesh.wire import frames
from mesh.wire.events import HeadReceived
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import RESPONSE, ByHand, frame, parsed
from tests.unit.wire.hostile.attacks import FLOODS, GLITCHES, Flood
from tests.unit.wire.raw import raw_client
from tests.unit.wire.serving import serving

LIMITS = WireLimits(max_glitches=GLITCHES, max_concurrent_streams=64, max_frame_bytes=16_384)


@pytest.mark.parametrize("flood", FLOODS, ids=str)
def test_a_flood_is_over_soon_and_leaves_nothing(flood: Flood) -> None:
    peer = ByHand(limits=LIMITS)
    peer.connection.take()
    told = peer.send(flood.first)
    for event in told:
        if isinstance(event, HeadReceived) and "9511" in flood.name:
            peer.connection.send_head(event.stream_id, encode_block(RESPONSE))
            peer.connection.send_data(event.stream_id, bytes(100_000))
    answers = peer.taken()
    written = 0
    for index in range(flood.most):
        told = peer.send(flood.piece(index))
        assert len(told) <= 4
        answers = peer.taken()
        written += sum(len(answer.payload) + 9 for answer in answers)
        if peer.connection.terminated:
            break
    assert peer.connection.terminated
    assert answers[-1].kind == frames.GOAWAY
    assert answers[-1].code == flood.code
    # What it was answered is less than what anybody may have us write, and nothing is left.
    assert written <= 40 * GLITCHES
    assert not peer.connection.streams
    assert peer.connection.sender.waiting_bytes == 0
    assert peer.send(flood.piece(0)) == []
    assert peer.taken() == []


@pytest.mark.parametrize("flood", [flood for flood in FLOODS if "8671" in flood.name], ids=str)
def test_calls_that_are_looked_at_before_they_are_spoilt_do_not_pay_for_that(flood: Flood) -> None:
    peer = ByHand(limits=LIMITS)
    for index in range(flood.most * 3):
        for one in parsed(flood.piece(index)):
            peer.send(frame(one.kind, one.flags, one.stream_id, one.payload))
            answers = peer.taken()
            if peer.connection.terminated:
                assert answers[-1].code == flood.code
                return
    pytest.fail("it goes on")


@pytest.mark.parametrize("flood", FLOODS, ids=str)
async def test_others_are_served_during_a_flood_and_memory_stays_flat(flood: Flood) -> None:
    async with serving(LIMITS) as server, raw_client(server.port) as neighbour, raw_client(server.port) as attacker:
        assert await neighbour.ask() == b"hello"
        tracemalloc.start(1)
        try:
            before, _ = tracemalloc.get_traced_memory()
            await attacker.send(flood.first)
            sent = 0
            # In bursts, for longer than it can take: the server has hung up at last, whatever it is sent.
            while not attacker.lost.done() and sent <= flood.most + GLITCHES:
                await attacker.send(*[flood.piece(sent + index) for index in range(50)])
                sent += 50
                assert await neighbour.ask() == b"hello"
            await attacker.gone()
            assert await neighbour.ask() == b"hello"
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The attacker's own pieces are in it too.
        assert most - before < (8 << 20) + sys.getsizeof(flood.piece(0)) * 50
        assert [bool(one.calls) for one in server.connections] == [False]
        # A flood may be calls as well: no more of them ran than may be open, beside the neighbour's one.
        assert server.handlers.most_running <= LIMITS.max_concurrent_streams + 1
        away = attacker.goaway()
        assert away is None or away.code == flood.code
