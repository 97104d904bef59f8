"""References: what a row says it wants. Pure; two spellings of one thing are equal."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urljoin

from mesh import InvalidInput
from mesh.hosts import PORTS, split_authority

__all__ = ["MAX_REFERENCE", "FileReference", "ObjectReference", "Reference", "WebReference", "reference_of"]

MAX_REFERENCE = 8000
"""Bytes of one reference: what the usual servers take as a request line (RFC 9112, 3)."""

_MAX_SHOWN = 200
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,15}):(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WEB = re.compile(r"//([^/?#]*)([^?#]*)((?:\?[^#]*)?)(?:#.*)?")
"""Authority, path, query; split as RFC 3986, B, does it."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_STAYS = "!$%&'()*+,/:;=?@[]~"
"""What RFC 3986 gives a meaning; everything else but letters, digits and `-._~` is escaped."""


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file: absolute, or below one of the roots. Without `.`, `..` and empty parts."""

    absolute: bool
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return _shown("file:" + "/" * self.absolute + "/".join(self.parts))


@dataclass(frozen=True, slots=True)
class WebReference:
    """An `http:` or `https:` URL without fragment."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, escaped."""

    @property
    def url(self) -> str:
        """As it is asked for."""
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.target}"

    def __str__(self) -> str:
        # A query may hold a signature or a key.
        return _shown(self.url.partition("?")[0])

    def redirected(self, location: str) -> WebReference:
        """Where a redirect leads.

        Raises:
            InvalidInput: To something that is no web reference, or from https to http.
        """
        try:
            if not location:
                raise ValueError("a redirect without Location")
            found = reference_of(urljoin(self.url, location).encode())
        except (ValueError, InvalidInput):
            found = None
        # What was redirected to is not shown: the caller did not send it.
        if not isinstance(found, WebReference):
            raise InvalidInput("it redirects to what is no http: or https: URL")
        if self.scheme == "https" and found.scheme == "http":
            raise InvalidInput("it redirects from https: to http:")
        return found


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An object of a bucket. Keys are taken as written: `%20` is three characters."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return _shown(f"s3://{self.bucket}/{self.key}")


Reference = FileReference | WebReference | ObjectReference


def reference_of(data: bytes) -> Reference:
    """Read one reference.

    Raises:
        InvalidInput: It is none; says why, and does not repeat it.
    """
    if len(data) > MAX_REFERENCE:
        raise InvalidInput(f"a reference of {len(data)} bytes; at most {MAX_REFERENCE} are taken")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidInput("the reference is not UTF-8") from None
    if _CONTROL.search(text):
        raise InvalidInput("the reference has control characters")
    matched = _SCHEME.fullmatch(text)
    if matched is None:
        raise InvalidInput("the reference does not begin with file:, http:, https: or s3:")
    scheme, rest = matched[1].lower(), matched[2]
    if scheme == "file":
        return _file(rest)
    if scheme in PORTS:
        return _web(scheme, rest)
    if scheme == "s3":
        return _object(rest)
    raise InvalidInput(f"references of {scheme}: are not taken")


def _file(rest: str) -> FileReference:
    if "?" in rest or "#" in rest:
        raise InvalidInput("a file: reference has no ? or #; write %3F and %23 where a name has them")
    if _BROKEN_ESCAPE.search(rest):
        raise InvalidInput("the reference has a % that escapes nothing; write %25")
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        if host.lower() not in ("", "localhost"):
            raise InvalidInput("a file: reference names a host; write file:///path")
    path = unquote_to_bytes(rest)
    if b"\0" in path:
        raise InvalidInput("the reference has a zero byte")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise InvalidInput("a file: reference has no '..'")
    if not parts:
        raise InvalidInput("the reference names no file")
    return FileReference(path.startswith(b"/"), tuple(map(os.fsdecode, parts)))


def _web(scheme: str, rest: str) -> WebReference:
    # Programs differ in what they make of these, and a check is worth nothing where two of them differ.
    matched = _WEB.fullmatch(rest)
    if matched is None or "\\" in rest or any(map(str.isspace, rest)):
        raise InvalidInput(f"write {scheme}://host/path, without spaces and backslashes")
    authority, path, query = matched.groups()
    if "@" in authority:
        raise InvalidInput("the URL has a user name or password; those are not taken")
    try:
        host, port = split_authority(authority)
    except ValueError as error:
        raise InvalidInput(f"the URL is wrong: {error}") from error
    if _BROKEN_ESCAPE.search(path + query):
        raise InvalidInput("the URL has a % that escapes nothing; write %25")
    target = quote((path or "/") + query, safe=_STAYS)
    return WebReference(scheme, host, PORTS[scheme] if port is None else port, target)


def _object(rest: str) -> ObjectReference:
    bucket, _, key = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not _BUCKET.fullmatch(bucket) or not key:
        raise InvalidInput("write s3://bucket/key")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput("a key has no empty parts, '.' or '..'")
    return ObjectReference(bucket, key)


def _shown(text: str) -> str:
    """Safe in a log: in ASCII and of bounded length."""
    told = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    told = told.encode("ascii", errors="backslashreplace").decode()
    return told if len(told) <= _MAX_SHOWN else told[:_MAX_SHOWN] + "..."
