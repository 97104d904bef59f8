"""The tables of rules once more, against a real server on a socket: as gRPC, and as a generic conformance suite asks.

Such a suite knows nothing of gRPC. Its requests are answered as they come (415), and what it sends after that has to be
judged as ever: so each frame is sent by itself, and the rule may be answered for the stream or for the connection.
"""

from __future__ import annotations

import pytest

from mesh.testing import settle
from mesh.wire import frames
from mesh.wire.faults import ErrorCode
from tests.unit.wire.core.given import frame, parsed, ping
from tests.unit.wire.core.rules import Line
from tests.unit.wire.core.test_rfc7541 import HPACK
from tests.unit.wire.core.test_rfc9113_calls import CALLS
from tests.unit.wire.core.test_rfc9113_frames import CONNECTION, FRAMES, LIMITS, STATES
from tests.unit.wire.raw import RawClient, raw_client
from tests.unit.wire.serving import serving

LINES = CONNECTION + STATES + FRAMES + CALLS + HPACK


async def verdict(client: RawClient) -> tuple[list[ErrorCode], list[tuple[int, ErrorCode]]]:
    """The codes with which the connection and streams were ended; a ping tells that all was read."""
    await client.send(ping(b"go on..."))
    await client.until(lambda read: any(one.kind == frames.PING and one.payload == b"go on..." for one in read))
    away = [one.code for one in client.frames if one.kind == frames.GOAWAY]
    undone = [(one.stream_id, one.code) for one in client.frames if one.kind == frames.RST_STREAM]
    return away, [one for one in undone if one[1] != ErrorCode.NO_ERROR]


@pytest.mark.parametrize("line", LINES, ids=str)
async def test_a_server_of_grpc_keeps_the_rules(line: Line) -> None:
    async with serving(LIMITS) as server, raw_client(server.port) as client:
        await client.send(*line.sent)
        away, undone = await verdict(client)
        assert away == ([line.ends] if line.ends is not None else [])
        if line.ends is not None:
            await client.gone()
        else:
            assert undone == ([line.resets] if line.resets is not None else [])


@pytest.mark.parametrize("line", LINES, ids=str)
async def test_a_server_keeps_the_rules_for_requests_that_are_no_grpc(line: Line) -> None:
    plain = b"".join(line.sent).replace(b"application/grpc", b"application/html")
    async with serving(LIMITS) as server, raw_client(server.port) as client:
        for one in parsed(plain)[:300]:
            await client.send(frame(one.kind, one.flags, one.stream_id, one.payload))
            await settle(3)
        away, undone = await verdict(client)
        codes = {*away, *[code for _, code in undone]}
        if line.ends is not None:
            assert codes == {line.ends}
        else:
            assert codes == ({line.resets[1]} if line.resets is not None else set())
        assert server.handlers.started == 0
