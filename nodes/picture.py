"""Picture files of bounded size, to pixels and back. Needs Pillow (`pip install inference-mesh[examples]`)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from mesh import Array, InvalidInput, SetupError
from mesh.units import format_size

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MAX_TOTAL", "Reader", "check_total"]

MAX_BYTES = 16 << 20
"""The largest file, where a node is not told otherwise."""
MAX_PIXELS = 1 << 24
"""The largest picture, where a node is not told otherwise."""
MAX_TOTAL = 256 << 20
"""The most bytes of pixels of one call, where a node is not told otherwise."""

_FORMATS = ("PNG", "JPEG")
_WRITTEN_AS_THEY_ARE = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_FASTEST = 1
"""zlib's level: what is written here is read once, one hop on."""


class Reader:
    """Reads PNG and JPEG files. A file that is too large is refused by its header, before anything is decoded.

    Args:
        node: Who asks, for the text that says what to install.
        tensor: Where the files come from, for error texts.
        max_bytes: The largest file.
        max_pixels: The largest picture.

    Raises:
        SetupError: A bound is below 1, or Pillow is not installed.
    """

    def __init__(self, node: str, tensor: str, *, max_bytes: int, max_pixels: int) -> None:
        try:
            import PIL.Image
        except ImportError as error:
            raise SetupError(f"{node} needs Pillow: pip install 'inference-mesh[examples]'") from error
        for name, value in (("max_bytes", max_bytes), ("max_pixels", max_pixels)):
            if value < 1:
                raise SetupError(f"{name} is {value}: it has to be at least 1")
        self._pillow = PIL.Image
        self.tensor = tensor
        self._max_bytes, self._max_pixels = max_bytes, max_pixels

    def open(self, row: int, data: bytes) -> Image:
        """A picture of which only the header was read.

        Raises:
            InvalidInput: Too large, or no picture; names the row.
        """
        if len(data) > self._max_bytes:
            raise self.wrong(row, f"{len(data)} bytes; at most {self._max_bytes} are taken")
        try:
            image = self._pillow.open(io.BytesIO(data), formats=_FORMATS)
        except (self._pillow.DecompressionBombError, self._pillow.DecompressionBombWarning) as error:
            raise self.wrong(row, f"more than the {self._max_pixels} pixels that are taken") from error
        except Exception as error:
            raise self.wrong(row, "not a PNG or JPEG picture") from error
        if image.width * image.height > self._max_pixels:
            raise self.wrong(row, f"{image.height}x{image.width} pixels; at most {self._max_pixels} are taken")
        return image

    def rgb(self, row: int, image: Image, size: tuple[int, int] | None = None) -> Array:
        """The pixels, UINT8[height, width, 3]; resized to height and width with a bilinear filter, where given.

        Transparency is dropped, 16-bit grey becomes 8-bit, a rotation noted in EXIF is not carried out.

        Raises:
            InvalidInput: The file is damaged; names the row.
        """
        try:
            return np.asarray(self._rgb(image, size or (image.height, image.width)))
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises a dozen kinds for damaged files
            raise self.wrong(row, "the picture is damaged or incomplete") from error

    def turned(self, row: int, image: Image, quarters: int) -> bytes:
        """The picture turned counter-clockwise by so many quarters, as PNG, in the colours it has.

        Raises:
            InvalidInput: The file is damaged; names the row.
        """
        how = self._pillow.Transpose
        steps = {1: how.ROTATE_90, 2: how.ROTATE_180, 3: how.ROTATE_270}
        out = io.BytesIO()
        try:
            plain = image if image.mode in _WRITTEN_AS_THEY_ARE else self._rgb(image, (image.height, image.width))
            plain.transpose(steps[quarters]).save(out, "PNG", compress_level=_FASTEST)
        except MemoryError:
            raise
        except Exception as error:
            raise self.wrong(row, "the picture is damaged or incomplete") from error
        return out.getvalue()

    def png(self, pixels: Array) -> bytes:
        """UINT8[height, width, 3] as a PNG file."""
        out = io.BytesIO()
        self._pillow.fromarray(pixels).save(out, "PNG", compress_level=_FASTEST)
        return out.getvalue()

    def wrong(self, row: int, what: str) -> InvalidInput:
        """The error that names tensor and row."""
        return InvalidInput(f"tensor {self.tensor!r}: {what}", tensor=self.tensor, row=row)

    def _rgb(self, image: Image, size: tuple[int, int]) -> Image:
        if image.mode.startswith("I"):
            # Pillow would cut 16-bit grey off at 255 instead of scaling it.
            image = self._pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        rgb = image.convert("RGB")
        height, width = size
        return rgb if rgb.size == (width, height) else rgb.resize((width, height), self._pillow.Resampling.BILINEAR)


def check_total(total: int, at_most: int, what: str, tensor: str) -> None:
    """Hold the bytes of pixels of all rows together against a bound.

    Raises:
        InvalidInput: They are more.
    """
    if total > at_most:
        raise InvalidInput(
            f"tensor {tensor!r}: {what} make {format_size(total)} of pixels; "
            f"at most {format_size(at_most)} are taken at once",
            tensor=tensor,
        )
