"""Bytes of a process's output to lines of text, each of bounded length."""

from __future__ import annotations

import codecs

__all__ = ["LINE_CHARACTERS_MAX", "LineSplitter"]

LINE_CHARACTERS_MAX = 8_192
"""A longer line is cut into pieces of this length: nothing is lost, and nothing grows."""


class LineSplitter:
    """Feed it bytes as they come; it gives lines without their ends. What is not UTF-8 is replaced."""

    def __init__(self, characters_max: int = LINE_CHARACTERS_MAX) -> None:
        self._max = characters_max
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *lines, rest = (self._rest + self._decoder.decode(data)).split("\n")
        *pieces, self._rest = self._pieces(rest)
        return [piece for line in lines for piece in self._pieces(line.removesuffix("\r"))] + pieces

    def finish(self) -> list[str]:
        """What is left when the output ends: a last line that has no end, or nothing."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return self._pieces(rest) if rest else []

    def _pieces(self, line: str) -> list[str]:
        return [line[start : start + self._max] for start in range(0, len(line), self._max)] or [""]
