"""Signatures of callbacks, after Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks).

What is signed is `id.timestamp.body`, with HMAC-SHA256; the signature is written `v1,` and base64. Where there are
several keys, as while one takes the place of another, there are as many signatures, with spaces between them, and
whoever is told takes any that fits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from mesh.errors import SetupError

__all__ = ["TOLERANCE_S", "read_keys", "sign", "verify"]

TOLERANCE_S = 300
"""How far the timestamp may be from the clock of whoever is told: five minutes, as the libraries of the standard."""
_PREFIX = "whsec_"
_FEWEST, _MOST = 24, 64
"""Bytes of a key, as the standard has them."""
_MOST_KEYS = 4


def read_keys(text: str, file: str) -> tuple[bytes, ...]:
    """The keys in a key file: one a line, in base64, with or without `whsec_` before it. The first is the newest.

    Raises:
        SetupError: There is none, there are more than four, or one is not 24 to 64 bytes; names the file and line, and
            never the key.
    """
    keys: list[bytes] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = base64.b64decode(line.strip().removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise SetupError(f"{file}:{number}: a key for callbacks is written in base64") from None
        if not _FEWEST <= len(key) <= _MOST:
            text = f"a key for callbacks has {_FEWEST} to {_MOST} bytes, and not {len(key)}"
            raise SetupError(f"{file}:{number}: {text}: `openssl rand -base64 32` makes one")
        keys.append(key)
    if not 1 <= len(keys) <= _MOST_KEYS:
        raise SetupError(f"{file}: {len(keys)} keys for callbacks, where there have to be 1 to {_MOST_KEYS}")
    return tuple(keys)


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The signatures of a message; empty where there is no key.

    Args:
        keys: One signature each.
        message_id: The same each time that the message is sent.
        timestamp: When it is sent, in whole seconds since the epoch.
        body: What is sent.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}" for key in keys)


def verify(keys: Sequence[bytes], signature: str, message_id: str, timestamp: int, body: bytes, *, now: float) -> bool:
    """Whether a message was signed with one of the keys, and not long before or after `now`: for whoever is told."""
    if abs(now - timestamp) > TOLERANCE_S:
        return False
    mine = sign(keys, message_id, timestamp, body).split()
    return any(hmac.compare_digest(one.encode(), other.encode()) for one in mine for other in signature.split())
