"""Ids of jobs: 32 characters that tell when a job came, in which lane it waits, and that this store gave them.

20 bytes in base32hex (RFC 4648, section 7) in small letters, so that ids sort as their jobs came:

| bytes | what |
|---|---|
| 6 | milliseconds since 1970-01-01 UTC |
| 1 | the lane |
| 9 | random |
| 4 | a keyed BLAKE3 of the others, by the store's secret |

The last are why nothing need be kept of a job that is expired: an id whose check fails was never given; one whose check
holds was, so where nothing is stored of it, it is over and gone.
"""

from __future__ import annotations

import hmac
import os
from base64 import b32hexdecode, b32hexencode
from dataclasses import dataclass

from blake3 import blake3

from mesh.jobs.records import Lane

__all__ = ["ID_CHARACTERS", "SECRET_BYTES", "Ids", "ParsedId"]

ID_CHARACTERS = 32
SECRET_BYTES = 32
"""Of the key: what keyed BLAKE3 takes."""
_TIME_BYTES, _RANDOM_BYTES, _CHECK_BYTES = 6, 9, 4
_LANES = {lane.value: lane for lane in Lane}


@dataclass(frozen=True, slots=True)
class ParsedId:
    """What an id tells."""

    lane: Lane
    time: float
    """When it was given, in seconds since 1970-01-01 UTC, to the millisecond."""


class Ids:
    """Gives ids, and knows its own.

    Args:
        secret: `SECRET_BYTES` that all processes of one store share.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, lane: Lane, time: float) -> str:
        """An id that nobody has. `time` is in seconds since 1970-01-01 UTC."""
        # As many milliseconds as fit, whatever a clock says.
        milliseconds = int(min(max(0.0, time * 1000), float((1 << 8 * _TIME_BYTES) - 1)))
        told = milliseconds.to_bytes(_TIME_BYTES, "big") + bytes((lane.value,)) + os.urandom(_RANDOM_BYTES)
        return b32hexencode(told + self._check(told)).decode().lower()

    def parse(self, text: str) -> ParsedId | None:
        """What an id tells; None where it is not one of this store's."""
        if len(text) != ID_CHARACTERS or not text.isascii() or text != text.lower():
            return None
        try:
            raw = b32hexdecode(text.upper())
        except ValueError:
            return None
        told, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        lane = _LANES.get(told[_TIME_BYTES])
        if lane is None or not hmac.compare_digest(check, self._check(told)):
            return None
        return ParsedId(lane, int.from_bytes(told[:_TIME_BYTES], "big") / 1000)

    def _check(self, told: bytes) -> bytes:
        return blake3(told, key=self._secret).digest(_CHECK_BYTES)
