"""`Oracle`: a connection whose peer may send anything, and what has to hold whatever it sends.

Shared by the property tests and by the fuzzer (`make fuzz`), so it takes its choices as bytes.
"""
# pyright: reportPrivateUsage=false

from __future__ import annotations

from mesh.wire import frames
from mesh.wire.connection import Connection
from mesh.wire.events import (
    DataReceived,
    Event,
    HeadReceived,
    StreamReset,
    Terminated,
    TrailersReceived,
    WindowOpened,
)
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from mesh.wire.state import REMEMBERED_RESETS
from tests.unit.wire.core.given import REQUEST, RESPONSE, parsed, settings

__all__ = ["LIMITS", "Oracle", "drive", "framed"]

LIMITS = WireLimits(
    max_concurrent_streams=8,
    max_frame_bytes=16_384,
    stream_window_bytes=20_000,
    connection_window_bytes=70_000,
    max_header_bytes=8192,
    max_header_list_bytes=4096,
    max_waiting_bytes=50_000,
    max_glitches=300,
    glitches_per_second=0,
    remembered_blocks=8,
    remembered_bytes=8192,
)
CALLS = 4
"""Calls that a client begins at first."""


class Oracle:
    """One connection, its application, and the rules.

    Args:
        client: The role of the connection under test.
    """

    def __init__(self, *, client: bool) -> None:
        self.client = client
        self.connection = Connection(client=client, limits=LIMITS, clock=lambda: 0.0)
        self.phases: dict[int, str] = {}
        """By stream that the application knows: `head` (still to come), `body`, `end`, `gone`."""
        self.over = False
        self.frames_out = 0
        self.connection.start()
        if client:
            for _ in range(CALLS):
                self.begin()
        self.check_out()

    def begin(self) -> None:
        """A call of a client's."""
        if self.connection.can_open:
            stream_id = self.connection.open_stream()
            self.connection.send_head(stream_id, encode_block(REQUEST))
            self.phases[stream_id] = "head"

    def receive(self, data: bytes, choices: bytes = b"") -> None:
        """Some bytes of the peer; what the application does then is chosen by other bytes."""
        events = self.connection.receive(data)
        assert not (self.over and events), "something is told after the end"
        for event in events:
            self.check_event(event)
        for index, choice in enumerate(choices[: len(events) + 1]):
            self.act(choice, events[index] if index < len(events) else None)
        self.check_state()
        self.check_out()

    # The application.

    def act(self, choice: int, event: Event | None) -> None:
        """Do something, in the way of an application that is well behaved but capricious."""
        wire = self.connection
        stream_id = getattr(event, "stream_id", next(iter(wire.streams), 0))
        stream = wire.streams.get(stream_id)
        if choice & 3 == 3 and self.client:
            self.begin()
        elif stream is not None and stream.sending == 0:
            wire.send_head(stream_id, encode_block(RESPONSE), end=choice & 4 > 0)
        elif choice & 8:
            wire.send_data(stream_id, bytes((choice & 0x70) * 100), end=choice & 0x80 > 0)
        elif choice & 16:
            wire.send_trailers(stream_id, encode_block([(b"grpc-status", b"0")]))
        elif choice & 32 and stream is not None:
            wire.reset(stream_id, ErrorCode.CANCEL)
            self.phases[stream_id] = "gone"
        elif choice == 1:
            wire.ping(b"12345678")
        elif choice == 2:
            wire.go_away()

    # The rules.

    def check_event(self, event: Event) -> None:
        """A stream's head comes first, then its data, then its end; nothing comes after that or a reset."""
        if isinstance(event, Terminated):
            self.over = True
            return
        assert not self.over
        if not isinstance(event, HeadReceived | DataReceived | TrailersReceived | StreamReset | WindowOpened):
            return
        stream_id = event.stream_id
        phase = self.phases.get(stream_id)
        if isinstance(event, HeadReceived):
            assert phase == ("head" if self.client else None)
            assert not event.headers.wrong
            self.phases[stream_id] = "end" if event.end else "body"
        elif isinstance(event, DataReceived):
            assert phase in ("body", "gone")
            assert len(event.data) <= event.flow_bytes <= LIMITS.max_frame_bytes
            self.connection.acknowledge(stream_id, event.flow_bytes)
            self.phases[stream_id] = "end" if event.end and phase == "body" else phase
        elif isinstance(event, TrailersReceived):
            assert phase in ("body", "gone")
            self.phases[stream_id] = "end"
        elif isinstance(event, StreamReset):
            assert phase is not None
            self.phases[stream_id] = "gone"
        else:
            assert phase is not None
            assert self.connection.waiting_bytes(stream_id) == 0

    def check_state(self) -> None:
        """Everything that is held has its bound, and the sums are right."""
        wire, state, sender = self.connection, self.connection._state, self.connection.sender
        assert wire.terminated == self.over
        assert 0 <= state.receive_window <= LIMITS.connection_window_bytes or self.over
        assert sender.window <= frames.MAX_WINDOW or self.over
        waiting = [stream.waiting.size for stream in wire.streams.values() if stream.waiting is not None]
        assert sender.waiting_bytes == sum(waiting)
        assert len(sender._queue) <= len(wire.streams)
        if not self.client:
            assert len(wire.streams) == state.remote_open <= LIMITS.max_concurrent_streams
            assert sender.waiting_bytes <= max(LIMITS.max_waiting_bytes, 0x70 * 100)
        assert len(state._resets) <= REMEMBERED_RESETS
        assert not state._stillborn
        assert not state.events
        reader = state.reader
        assert len(reader.heads) + len(reader.trailers) <= LIMITS.remembered_blocks
        assert 0 <= reader._held_bytes <= LIMITS.remembered_bytes
        table = reader._decoder._entries
        assert sum(len(name) + len(value) + 32 for name, value in table) == reader._decoder._size <= 4096
        if state.block is not None:
            assert state.block.size <= LIMITS.max_header_bytes
            assert len(state.block.pieces) <= LIMITS.max_headers_frames
        held = sum(map(len, wire._receiver._pieces))
        assert held <= LIMITS.max_frame_bytes + frames.HEAD_SIZE

    def check_out(self) -> None:
        """What is put out are whole frames that the peer takes, and no answer is longer than its question deserves."""
        out = self.connection.take()
        self.connection.sender.drained()
        found = parsed(out)
        for one in found:
            assert len(one.payload) <= max(self.connection.peer.max_frame, frames.DEFAULT_FRAME)
            assert one.kind in (0, 1, 3, 4, 6, 7, 8, 9)
        if self.over:
            ends = [one for one in found if one.kind == frames.GOAWAY]
            assert not found or found[-1] is ends[-1]
        self.frames_out += len(found)


def framed(data: bytes) -> bytes:
    """Any bytes as frames whose lengths are right: kind, flags, stream and length from four of them, then a payload."""
    out: list[bytes] = []
    place = 0
    while place + 4 <= len(data):
        kind, flags, stream_id, length = data[place : place + 4]
        payload = data[place + 4 : place + 4 + length]
        place += 4 + length
        out.append(
            len(payload).to_bytes(3, "big") + bytes((kind % 11, flags)) + (stream_id % 24).to_bytes(4, "big") + payload
        )
    return b"".join(out)


def drive(data: bytes, *, client: bool, hello: bool = True) -> Oracle:
    """A whole life by some bytes: how it is cut and what the application does come from the first of them."""
    size = data[0] if data else 0
    choices = data[1 : 1 + size % 32]
    rest = data[1 + size % 32 :]
    oracle = Oracle(client=client)
    if hello:
        oracle.receive((b"" if client else frames.PREFACE) + settings() + settings(ack=True))
    step = max((1, 3, 9, 30, 1000, 1 << 20)[size % 6], len(rest) // 200)
    for index in range(0, len(rest), step):
        shift = index % (len(choices) or 1)
        oracle.receive(rest[index : index + step], choices[shift:])
    assert oracle.connection.receive(b"") == []
    return oracle
