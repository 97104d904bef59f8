"""How many bytes a request may take in: of one body, and of all together."""

from __future__ import annotations

from mesh import InvalidInput
from mesh.units import format_size

__all__ = ["Allowance", "Intake"]


class Allowance:
    """What is left of the bytes of one request.

    Args:
        most_bytes: Of all rows of the answer together; a body that answers several rows counts for each.
        tensor: What asked for them, for the error.
    """

    def __init__(self, most_bytes: int, tensor: str) -> None:
        self._tensor = tensor
        self._most_bytes = most_bytes
        self._left = most_bytes

    def take(self, count: int) -> None:
        """Use some of it.

        Raises:
            InvalidInput: No more is left.
        """
        self._left -= count
        if self._left < 0:
            text = f"the rows together are more than the {format_size(self._most_bytes)} that are taken"
            raise InvalidInput(text, tensor=self._tensor)


class Intake:
    """One body, as it arrives.

    Args:
        max_bytes: Of this body.
        allowance: Of the request.
        rows: Rows of the answer that it becomes.
    """

    def __init__(self, max_bytes: int, allowance: Allowance, rows: int) -> None:
        self._max_bytes = max_bytes
        self._allowance = allowance
        self._rows = rows
        self._chunks: list[bytes] = []
        self._size = 0

    def announced(self, size: int) -> None:
        """Hold a size that was told in advance against the bound of a body.

        Raises:
            InvalidInput: It is more.
        """
        if size > self._max_bytes:
            raise InvalidInput(f"more than the {format_size(self._max_bytes)} that are taken")

    def add(self, chunk: bytes) -> None:
        """Take in what has arrived.

        Raises:
            InvalidInput: This body or the request has become too large.
        """
        self._size += len(chunk)
        self.announced(self._size)
        self._allowance.take(len(chunk) * self._rows)
        self._chunks.append(chunk)

    def body(self) -> bytes:
        """All of it."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
