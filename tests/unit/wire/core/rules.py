"""Lines of the tables of rules: what a peer sends, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.wire import frames
from mesh.wire.events import HeadReceived, StreamReset, Terminated
from mesh.wire.faults import ErrorCode
from tests.unit.wire.core.given import ByHand, ping

__all__ = [
    "CALM",
    "CLOSED",
    "COMPRESSION",
    "FLOW",
    "PROTOCOL",
    "REFUSED",
    "SIZE",
    "Line",
    "check",
    "ends",
    "fine",
    "resets",
]

PROTOCOL, FLOW, SIZE = ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.FRAME_SIZE_ERROR
CLOSED, COMPRESSION, CALM = ErrorCode.STREAM_CLOSED, ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM
REFUSED = ErrorCode.REFUSED_STREAM


@dataclass(frozen=True)
class Line:
    """Bytes of a peer that has said hello, and what is made of them."""

    section: str
    what: str
    sent: tuple[bytes, ...]
    ends: ErrorCode | None = None
    """The connection ends with this code."""
    resets: tuple[int, ErrorCode] | None = None
    """This stream is reset with this code, and nothing else happens to the connection."""

    def __str__(self) -> str:
        return f"{self.section} {self.what}"


def ends(code: ErrorCode, section: str, what: str, *sent: bytes) -> Line:
    return Line(section, what, sent, ends=code)


def resets(stream_id: int, code: ErrorCode, section: str, what: str, *sent: bytes) -> Line:
    return Line(section, what, sent, resets=(stream_id, code))


def fine(section: str, what: str, *sent: bytes) -> Line:
    return Line(section, what, sent)


def check(peer: ByHand, line: Line, step: int) -> None:
    """What a line says has to come of it, in frames and in events; and whether the connection goes on."""
    told = peer.send(*line.sent, step=step)
    answers = peer.taken()
    away = [answer.code for answer in answers if answer.kind == frames.GOAWAY]
    undone = [(answer.stream_id, answer.code) for answer in answers if answer.kind == frames.RST_STREAM]
    terminated = [event.code for event in told if isinstance(event, Terminated)]
    if line.ends is not None:
        assert (away, terminated, peer.connection.terminated) == ([line.ends], [line.ends], True)
        assert answers[-1].kind == frames.GOAWAY
        assert peer.send(ping()) == []
        assert peer.taken() == []
        return
    assert (away, terminated, peer.connection.terminated) == ([], [], False)
    assert undone == ([line.resets] if line.resets else [])
    # Told of a reset is who has heard of the call.
    heard = {event.stream_id for event in told if isinstance(event, HeadReceived)}
    ours = [(event.stream_id, event.code) for event in told if isinstance(event, StreamReset) and not event.remote]
    gone = {event.stream_id for event in told if isinstance(event, StreamReset) and event.remote}
    expected = line.resets and (peer.connection.client or line.resets[0] in heard) and line.resets[0] not in gone
    assert ours == ([line.resets] if expected else [])
    peer.send(ping(b"go on..."))
    assert [(answer.kind, answer.payload) for answer in peer.taken()] == [(frames.PING, b"go on...")]
