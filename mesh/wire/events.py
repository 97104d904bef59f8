"""What `mesh.wire.connection` tells of a peer's bytes. Plain small objects: one for each thing that happened."""

from __future__ import annotations

from mesh.wire.frames import PREFIX_SIZE
from mesh.wire.headers import Headers

__all__ = [
    "DataReceived",
    "Event",
    "GoingAway",
    "HeadReceived",
    "PingAnswered",
    "RequestReceived",
    "ResponseReceived",
    "SettingsChanged",
    "StreamReset",
    "Terminated",
    "TrailersReceived",
    "WindowOpened",
]


class HeadReceived:
    """A stream's opening list: a request, or a response's head."""

    __slots__ = ("end", "headers", "stream_id", "timeout")

    def __init__(self, stream_id: int, headers: Headers, timeout: bytes | None, end: bool) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.timeout = timeout
        """Value of `grpc-timeout` where it stands apart from `headers`; see `HeaderReader.read`."""
        self.end = end


class DataReceived:
    """Some bytes of a stream. `flow_bytes` counts padding too; give them to `Connection.acknowledge` when consumed,
    once for each event, also when the stream is closed by then.

    A view keeps what was read with it in memory: copy what is kept for long.
    """

    __slots__ = ("data", "end", "flow_bytes", "stream_id")

    def __init__(self, stream_id: int, data: bytes | memoryview, flow_bytes: int, end: bool) -> None:
        self.stream_id = stream_id
        self.data = data
        self.flow_bytes = flow_bytes
        self.end = end


class TrailersReceived:
    """A stream's closing list; the peer's half is over."""

    __slots__ = ("headers", "stream_id")

    def __init__(self, stream_id: int, headers: Headers) -> None:
        self.stream_id = stream_id
        self.headers = headers


class RequestReceived:
    """A request that came whole in one read: a head, and data that is one message of gRPC and ends it.

    Only of a connection that joins. `flow_bytes` are to be acknowledged as those of a DataReceived.
    """

    __slots__ = ("headers", "message", "stream_id", "timeout")

    def __init__(self, stream_id: int, headers: Headers, timeout: bytes | None, message: bytes) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.timeout = timeout
        """As of a HeadReceived."""
        self.message = message
        """Without its prefix."""

    @property
    def flow_bytes(self) -> int:
        """Bytes that count against the windows."""
        return len(self.message) + PREFIX_SIZE

    def apart(self) -> tuple[HeadReceived, DataReceived]:
        """The same in two events."""
        head = HeadReceived(self.stream_id, self.headers, self.timeout, False)
        return head, DataReceived(self.stream_id, _framed(self.message), self.flow_bytes, True)


class ResponseReceived:
    """A response that came whole in one read: a head, one message of gRPC, and trailers. As RequestReceived."""

    __slots__ = ("headers", "message", "stream_id", "trailers")

    def __init__(self, stream_id: int, headers: Headers, message: bytes, trailers: Headers) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.message = message
        self.trailers = trailers

    @property
    def flow_bytes(self) -> int:
        """Bytes that count against the windows."""
        return len(self.message) + PREFIX_SIZE

    def apart(self) -> tuple[HeadReceived, DataReceived, TrailersReceived]:
        """The same in three events."""
        stream_id = self.stream_id
        head = HeadReceived(stream_id, self.headers, None, False)
        data = DataReceived(stream_id, _framed(self.message), self.flow_bytes, False)
        return head, data, TrailersReceived(stream_id, self.trailers)


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(PREFIX_SIZE - 1, "big") + message


class StreamReset:
    """A stream is over before its end: `remote` says whether the peer or a rule ended it.

    REFUSED_STREAM says that the peer has not looked at it, so that it may be tried again.
    """

    __slots__ = ("code", "remote", "stream_id", "text")

    def __init__(self, stream_id: int, code: int, *, remote: bool, text: str = "") -> None:
        self.stream_id = stream_id
        self.code = code
        self.remote = remote
        self.text = text


class WindowOpened:
    """All that waited on a stream has been sent: there is room for more."""

    __slots__ = ("stream_id",)

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id


class SettingsChanged:
    """The peer said what it takes."""

    __slots__ = ()


class PingAnswered:
    """The peer answered a ping."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class GoingAway:
    """The peer takes no stream above `last_stream_id` (each of those was reset before this). The others go on."""

    __slots__ = ("code", "debug", "last_stream_id")

    def __init__(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.last_stream_id = last_stream_id
        self.code = code
        self.debug = debug


class Terminated:
    """The connection is over by a rule of the protocol: send what is left, then hang up."""

    __slots__ = ("code", "text")

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text


Event = (
    RequestReceived
    | ResponseReceived
    | HeadReceived
    | DataReceived
    | TrailersReceived
    | StreamReset
    | WindowOpened
    | SettingsChanged
    | PingAnswered
    | GoingAway
    | Terminated
)
