"""What a header list may hold: RFC 9113, section 8. Each check returns the rule that is broken, or the empty text."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Field", "broken_head", "broken_trailers"]

Field = tuple[bytes, bytes]
"""Name and value."""

# 8.2.1: no upper case, no control or non-ASCII characters, no space; a colon only in front.
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z/\"(),;<=>?@\[\\\]{}]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_CONTROL = re.compile(rb"[\x00\r\n]")
# 8.2.2
_OF_A_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_REQUEST = frozenset((b":method", b":scheme", b":path", b":authority"))
_RESPONSE = frozenset((b":status",))


def broken_trailers(fields: Sequence[Field]) -> str:
    """The rules for trailers (8.1): those of fields, and no pseudo-header at all."""
    for name, _ in fields:
        if name[:1] == b":":
            return "8.1: a pseudo-header in trailers"
    return _broken_fields(fields)


def broken_head(fields: Sequence[Field], *, requests: bool) -> str:
    """The rules for the list that opens a request or response."""
    return _broken_pseudo(fields, requests=requests) or _broken_fields(fields)


def _broken_fields(fields: Sequence[Field]) -> str:
    lengths: set[bytes] = set()
    for name, value in fields:
        if _NAME.fullmatch(name) is None:
            return "8.2.1: a character that a field name may not have"
        # gRPC's own encoding of a message leaves spaces as they are, and so does grpcio at its ends.
        bad = _CONTROL if name == b"grpc-message" else _BAD_VALUE
        if bad.search(value) is not None:
            return "8.2.1: a character that a field value may not have there"
        if name in _OF_A_CONNECTION:
            return "8.2.2: a field that is of a connection"
        if name == b"te" and value != b"trailers":
            return "8.2.2: te says something other than trailers"
        if name == b"content-length":
            lengths.add(value)
            if not value.isdigit() or len(value) > 18 or len(lengths) > 1:
                return "8.1.1: a content-length that is no length"
    return ""


def _broken_pseudo(fields: Sequence[Field], *, requests: bool) -> str:
    known = _REQUEST if requests else _RESPONSE
    found: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name[:1] != b":":
            regular = True
        elif regular:
            return "8.3: a pseudo-header after a field"
        elif name not in known:
            return "8.3: a pseudo-header that is not known here"
        elif name in found:
            return "8.3: a pseudo-header twice"
        else:
            found[name] = value
    if not requests:
        status = found.get(b":status", b"")
        if status == b"101":
            return "8.6: HTTP/2 switches no protocols"
        return "" if _STATUS.fullmatch(status) else "8.3.2: no status"
    if found.get(b":method") == b"CONNECT":
        if b":authority" not in found or b":scheme" in found or b":path" in found:
            return "8.5: CONNECT has an authority, no scheme and no path"
        return ""
    if not found.get(b":method") or not found.get(b":scheme") or not found.get(b":path"):
        return "8.3.1: method, scheme or path is missing"
    return ""
