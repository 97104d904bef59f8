"""Differential state machine: `Connection` on one side, python-hyper's h2 as a strict peer on the other, in both roles.

Any order of actions on both sides, and any split of the bytes between them. Neither side may report an error, all data
arrives as it was sent, and in the end both count the same windows.
"""
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import deque
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mesh.wire.connection import Connection
from mesh.wire.events import (
    DataReceived,
    HeadReceived,
    PingAnswered,
    StreamReset,
    Terminated,
    TrailersReceived,
    WindowOpened,
)
from mesh.wire.faults import ErrorCode
from mesh.wire.frames import PREFACE
from mesh.wire.headers import Headers, encode_block
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import REQUEST, RESPONSE, parsed

Codes = h2.settings.SettingCodes
TRAILERS = [(b"grpc-status", b"0"), (b"grpc-message", b"fine")]
EXTRA = st.lists(
    st.tuples(st.sampled_from([b"x-a", b"x-b", b"x-c", b"x-trace"]), st.sampled_from([b"", b"1", b"2", b"v" * 200])),
    max_size=3,
)
SIZES = st.one_of(st.integers(0, 40), st.integers(0, 70_000))
WINDOWS = st.sampled_from([0, 1, 7, 1000, 65_535, 100_000])


class Call:
    """What each side knows of one stream: `ours` is the connection under test, `theirs` is h2."""

    def __init__(self) -> None:
        self.head = {"ours": False, "theirs": False}
        self.end = {"ours": False, "theirs": False}
        self.gone = {"ours": False, "theirs": False}
        """Who has reset it, or has heard that it was."""
        self.sent = {"ours": bytearray(), "theirs": bytearray()}
        self.got = {"ours": bytearray(), "theirs": bytearray()}
        self.fields: dict[str, list[Any]] = {"ours": [], "theirs": []}
        """The lists that a side sent and the other has not got yet."""
        self.finished = {"ours": False, "theirs": False}
        """Whose end the other side has got."""

    def is_undone(self) -> bool:
        return self.gone["ours"] or self.gone["theirs"]


class Machine(RuleBasedStateMachine):
    """Actions of both sides, and of the network between them."""

    client = False
    """The role of the connection under test."""

    @initialize(
        window=st.sampled_from([1, 5, 100, 65_535, 100_000]),
        whole=st.sampled_from([65_535, 100_000]),
        calls=st.integers(1, 5),
        remembered=st.sampled_from([0, 2, 256]),
    )
    def begin(self, window: int, whole: int, calls: int, remembered: int) -> None:
        limits = WireLimits(
            stream_window_bytes=window,
            connection_window_bytes=whole,
            max_concurrent_streams=calls,
            remembered_blocks=remembered,
            max_frame_bytes=16_384,
        )
        self.ours = Connection(client=self.client, limits=limits, clock=lambda: 0.0)
        config = h2.config.H2Configuration(client_side=not self.client, header_encoding=None)
        self.theirs = h2.connection.H2Connection(config)
        self.calls: dict[int, Call] = {}
        self.to_ours = bytearray()
        self.to_theirs = bytearray()
        self.ours_to_acknowledge: list[DataReceived] = []
        self.theirs_to_acknowledge: list[tuple[int, int]] = []
        self.pings = {"ours": 0, "theirs": 0}
        self.settings_out = 1
        self.cuts: deque[int] = deque()
        self.ours.start()
        self.theirs.initiate_connection()
        self.collect()

    # The network.

    def collect(self) -> None:
        out = self.ours.take()
        begin = len(PREFACE) if out.startswith(PREFACE) else 0
        self.cuts += [*([begin] if begin else []), *[len(frame.payload) + 9 for frame in parsed(out)]]
        self.to_theirs += out
        self.to_ours += self.theirs.data_to_send()

    @rule(count=st.one_of(st.integers(1, 30), st.integers(1, 200_000)))
    def bytes_reach_us(self, count: int) -> None:
        data = bytes(self.to_ours[:count])
        del self.to_ours[:count]
        for event in self.ours.receive(data):
            self.on_our_event(event)
        self.collect()

    @rule(count=st.one_of(st.integers(1, 30), st.integers(1, 200_000)))
    def bytes_reach_them(self, count: int) -> None:
        # One frame at a time: h2 takes longer frames only from the next call after their acknowledgement.
        while count > 0 and self.cuts:
            step = min(count, self.cuts[0])
            count -= step
            self.cuts[0] -= step
            if not self.cuts[0]:
                self.cuts.popleft()
            data = bytes(self.to_theirs[:step])
            del self.to_theirs[:step]
            for event in self.theirs.receive_data(data):
                self.on_their_event(event)
        self.ours.sender.drained()
        self.collect()

    def on_our_event(self, event: object) -> None:
        assert not isinstance(event, Terminated), event.text
        if isinstance(event, HeadReceived):
            call = self.calls[event.stream_id]
            fields = event.headers.fields
            if event.timeout is not None:
                fields = (*fields, (b"grpc-timeout", event.timeout))
            self.got_fields(call, "theirs", fields, event.headers)
            call.finished["theirs"] |= event.end
        elif isinstance(event, DataReceived):
            call = self.calls[event.stream_id]
            call.got["theirs"] += event.data
            call.finished["theirs"] |= event.end
            self.ours_to_acknowledge.append(event)
        elif isinstance(event, TrailersReceived):
            call = self.calls[event.stream_id]
            self.got_fields(call, "theirs", event.headers.fields, event.headers)
            call.finished["theirs"] = True
        elif isinstance(event, StreamReset):
            assert event.remote, event.text
            self.calls[event.stream_id].gone["ours"] = True
        elif isinstance(event, WindowOpened):
            assert self.ours.waiting_bytes(event.stream_id) == 0
        elif isinstance(event, PingAnswered):
            self.pings["ours"] -= 1

    def on_their_event(self, event: object) -> None:
        if isinstance(event, (h2.events.RequestReceived, h2.events.ResponseReceived, h2.events.TrailersReceived)):
            assert event.stream_id is not None
            self.got_fields(self.calls[event.stream_id], "ours", event.headers, None)
        elif isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            self.calls[event.stream_id].got["ours"] += event.data or b""
            self.theirs_to_acknowledge.append((event.stream_id, event.flow_controlled_length or 0))
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id is not None
            self.calls[event.stream_id].finished["ours"] = True
        elif isinstance(event, h2.events.StreamReset):
            assert event.stream_id is not None
            assert event.remote_reset
            call = self.calls[event.stream_id]
            assert call.gone["ours"], event
            call.gone["theirs"] = True
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings["theirs"] -= 1
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.settings_out -= 1
        assert not isinstance(event, h2.events.ConnectionTerminated), event

    @staticmethod
    def got_fields(call: Call, sender: str, fields: Any, headers: Headers | None) -> None:
        assert [(bytes(name), bytes(value)) for name, value in fields] == call.fields[sender].pop(0)
        assert headers is None or not (headers.wrong or headers.oversized)

    # Calls.

    def pick(self, side: str, data: st.DataObject, *, begun: bool = True, closable: bool = False) -> int | None:
        """A stream on which this side may still say something."""
        able = [
            stream_id
            for stream_id, call in self.calls.items()
            if call.head[side] == begun and not call.gone[side] and (closable or not call.end[side])
            if side == self.opener or self.knows(side, stream_id)
        ]
        return data.draw(st.sampled_from(able)) if able else None

    @property
    def opener(self) -> str:
        return "ours" if self.client else "theirs"

    def knows(self, side: str, stream_id: int) -> bool:
        """Whether the side that answers has heard of a call."""
        return not self.calls[stream_id].fields[self.opener] or bool(self.calls[stream_id].got[self.opener])

    @rule(extra=EXTRA, end=st.booleans(), timeout=st.sampled_from([b"", b"100m", b"99999999n", b"1S"]))
    def a_call_begins(self, extra: list[tuple[bytes, bytes]], end: bool, timeout: bytes) -> None:
        fields = [*REQUEST, *extra, *([(b"grpc-timeout", timeout)] if timeout else [])]
        if self.client:
            if not self.ours.can_open:
                return
            stream_id = self.ours.open_stream()
            self.ours.send_head(stream_id, encode_block(fields), end=end)
        else:
            most = min(self.theirs.remote_settings.max_concurrent_streams, self.ours.limits.max_concurrent_streams)
            if self.theirs.open_outbound_streams >= most or len(self.ours.streams) >= most:
                return
            stream_id = self.theirs.get_next_available_stream_id()
            self.theirs.send_headers(stream_id, fields, end_stream=end)
        call = self.calls[stream_id] = Call()
        self.sent_fields(call, self.opener, fields, end=end)

    def sent_fields(self, call: Call, side: str, fields: list[tuple[bytes, bytes]], *, end: bool) -> None:
        call.head[side] = True
        call.end[side] |= end
        call.fields[side].append(fields)
        self.collect()

    @rule(data=st.data(), extra=EXTRA, end=st.booleans())
    def a_call_is_answered(self, data: st.DataObject, extra: list[tuple[bytes, bytes]], end: bool) -> None:
        side = "theirs" if self.client else "ours"
        stream_id = self.pick(side, data, begun=False)
        if stream_id is not None:
            fields = [*RESPONSE, *extra]
            if side == "ours":
                self.ours.send_head(stream_id, encode_block(fields), end=end)
            else:
                self.theirs.send_headers(stream_id, fields, end_stream=end)
            self.sent_fields(self.calls[stream_id], side, fields, end=end)

    @rule(data=st.data(), size=SIZES, end=st.booleans())
    def we_send_data(self, data: st.DataObject, size: int, end: bool) -> None:
        stream_id = self.pick("ours", data)
        if stream_id is not None and self.ours.waiting_bytes(stream_id) < 200_000:
            call = self.calls[stream_id]
            sent = bytes(index * 7 + len(call.sent["ours"]) & 0xFF for index in range(size))
            self.ours.send_data(stream_id, sent, end=end)
            call.sent["ours"] += sent
            call.end["ours"] |= end
            self.collect()

    @rule(data=st.data(), size=SIZES, end=st.booleans(), pad=st.one_of(st.none(), st.integers(0, 255)))
    def they_send_data(self, data: st.DataObject, size: int, end: bool, pad: int | None) -> None:
        stream_id = self.pick("theirs", data)
        if stream_id is None:
            return
        room = min(self.theirs.local_flow_control_window(stream_id), self.theirs.max_outbound_frame_size)
        extra = 0 if pad is None else pad + 1
        if room < extra:
            pad, extra = None, 0
        call = self.calls[stream_id]
        sent = bytes(index * 5 + len(call.sent["theirs"]) & 0xFF for index in range(max(0, min(size, room - extra))))
        self.theirs.send_data(stream_id, sent, end_stream=end, pad_length=pad)
        call.sent["theirs"] += sent
        call.end["theirs"] |= end
        self.collect()

    @rule(data=st.data(), side=st.sampled_from(["ours", "theirs"]))
    def trailers(self, data: st.DataObject, side: str) -> None:
        stream_id = self.pick(side, data)
        if stream_id is not None:
            if side == "ours":
                self.ours.send_trailers(stream_id, encode_block(TRAILERS))
            else:
                self.theirs.send_headers(stream_id, TRAILERS, end_stream=True)
            self.sent_fields(self.calls[stream_id], side, TRAILERS, end=True)

    @rule(data=st.data(), code=st.sampled_from([ErrorCode.CANCEL, ErrorCode.NO_ERROR]))
    def we_reset(self, data: st.DataObject, code: ErrorCode) -> None:
        open_ones = [stream_id for stream_id in self.calls if stream_id in self.ours.streams]
        if open_ones:
            stream_id = data.draw(st.sampled_from(open_ones))
            self.ours.reset(stream_id, code)
            self.calls[stream_id].gone["ours"] = True
            assert self.ours.waiting_bytes(stream_id) == 0
            self.collect()

    @rule(data=st.data())
    def they_reset(self, data: st.DataObject) -> None:
        stream_id = self.pick("theirs", data, begun=data.draw(st.booleans()))
        if stream_id is not None:
            self.theirs.reset_stream(stream_id)
            self.calls[stream_id].gone["theirs"] = True
            self.collect()

    # The connection.

    @rule(count=st.integers(1, 5))
    def we_acknowledge(self, count: int) -> None:
        for event in self.ours_to_acknowledge[:count]:
            self.ours.acknowledge(event.stream_id, event.flow_bytes)
        del self.ours_to_acknowledge[:count]
        self.collect()

    @rule(count=st.integers(1, 5))
    def they_acknowledge(self, count: int) -> None:
        for stream_id, length in self.theirs_to_acknowledge[:count]:
            self.theirs.acknowledge_received_data(length, stream_id)
        del self.theirs_to_acknowledge[:count]
        self.collect()

    @rule(data=st.data(), increment=st.integers(1, 100_000), whole=st.booleans())
    def they_widen(self, data: st.DataObject, increment: int, whole: bool) -> None:
        stream_id = None if whole else self.pick("theirs", data)
        self.theirs.increment_flow_control_window(increment, stream_id)
        self.collect()

    # One change at a time: h2 takes an acknowledgement for that of all that it has changed.
    @precondition(lambda self: self.settings_out == 0)
    @rule(
        changed=st.fixed_dictionaries(
            {},
            optional={
                Codes.INITIAL_WINDOW_SIZE: WINDOWS,
                Codes.MAX_FRAME_SIZE: st.sampled_from([16_384, 20_000, 1 << 20]),
                Codes.HEADER_TABLE_SIZE: st.sampled_from([0, 100, 4096, 10_000]),
            },
        )
    )
    def they_change_settings(self, changed: dict[Any, int]) -> None:
        self.settings_out += 1
        self.theirs.update_settings(changed)
        self.collect()

    @rule(side=st.sampled_from(["ours", "theirs"]))
    def a_ping(self, side: str) -> None:
        self.pings[side] += 1
        if side == "ours":
            self.ours.ping(b"12345678")
        else:
            self.theirs.ping(b"12345678")
        self.collect()

    @precondition(lambda self: self.client is False)
    @rule(stream_id=st.integers(0, 20), weight=st.integers(1, 256), exclusive=st.booleans())
    def a_priority(self, stream_id: int, weight: int, exclusive: bool) -> None:
        self.theirs.prioritize(stream_id * 2 + 1, weight=weight, depends_on=0, exclusive=exclusive)
        self.collect()

    # The end.

    def teardown(self) -> None:
        if not hasattr(self, "ours"):
            return
        while self.settings_out:
            self.bytes_reach_us(1 << 20)
            self.bytes_reach_them(1 << 20)
        self.they_change_settings({Codes.INITIAL_WINDOW_SIZE: 65_535})
        for _ in range(200_000):
            if not (self.to_ours or self.to_theirs or self.ours_to_acknowledge or self.theirs_to_acknowledge):
                break
            self.bytes_reach_us(1 << 20)
            self.bytes_reach_them(1 << 20)
            self.we_acknowledge(1 << 20)
            self.they_acknowledge(1 << 20)
        else:
            raise AssertionError("it never comes to rest")
        self.everything_arrived()
        self.windows_agree()

    def everything_arrived(self) -> None:
        assert self.pings == {"ours": 0, "theirs": 0}
        for stream_id, call in self.calls.items():
            for side in ("ours", "theirs"):
                assert call.sent[side].startswith(call.got[side])
                if not call.is_undone():
                    assert call.got[side] == call.sent[side]
                    assert call.fields[side] == []
                    assert call.finished[side] == call.end[side]
            closed = call.is_undone() or (call.end["ours"] and call.end["theirs"])
            assert (stream_id not in self.ours.streams) == closed
        assert self.ours.sender.waiting_bytes == 0

    def windows_agree(self) -> None:
        state = self.ours._state
        assert state.receive_window == self.theirs.outbound_flow_control_window
        assert state.sender.window == self.theirs._inbound_flow_control_window_manager.current_window_size
        # All data was consumed: no more than half of the window is kept back.
        assert (state.limits.connection_window_bytes - state.receive_window) * 2 <= state.limits.connection_window_bytes
        for stream_id, stream in self.ours.streams.items():
            other = self.theirs.streams[stream_id]
            if not self.calls[stream_id].end["theirs"]:
                assert stream.receive_window == other.outbound_flow_control_window > 0
            if not self.calls[stream_id].end["ours"]:
                assert stream.send_window == other._inbound_window_manager.current_window_size


class Server(Machine):
    """h2 is the client."""


class Client(Machine):
    """h2 is the server."""

    client = True


LIMITED = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestServer = Server.TestCase
TestServer.settings = LIMITED
TestClient = Client.TestCase
TestClient.settings = LIMITED
