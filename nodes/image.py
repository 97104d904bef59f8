"""Pictures: files to pixels. Needs Pillow (`pip install inference-mesh[examples]`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mesh import Array, Context, Preprocess, SetupError, Signature, Size, Tensors
from nodes.picture import MAX_BYTES, MAX_PIXELS, MAX_TOTAL, Reader, check_total
from nodes.threads import Threaded

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DecodeImage"]


class DecodeImage(Threaded, Preprocess):
    """PNG or JPEG files to RGB pixels, in a thread of this node.

    All rows of one call have to have the same size, so give `size` where pictures vary; they are then resized with a
    bilinear filter, without keeping their proportions. Transparency is dropped, 16-bit grey becomes 8-bit, a rotation
    noted in EXIF is not carried out.

    Args:
        size: Height and width to resize to; None leaves pictures as they are.
        max_bytes: The largest file, in bytes.
        max_pixels: The largest picture, in pixels, read from its header before anything is decoded.
        max_total: The most that one call gives, in bytes of pixels, all rows together.
        workers: Calls decoded at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or Pillow is not installed.
    """

    def __init__(
        self,
        *,
        size: Sequence[int] | None = None,
        max_bytes: Size = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_total: Size = MAX_TOTAL,
        workers: int = 1,
    ) -> None:
        super().__init__(workers, "decode")
        self._reader = Reader("DecodeImage", "image", max_bytes=max_bytes, max_pixels=max_pixels)
        if max_total < 1:
            raise SetupError(f"max_total is {max_total}: it has to be at least 1")
        if size is not None and (len(size) != 2 or min(size) < 1 or size[0] * size[1] > max_pixels):
            raise SetupError(f"size is {list(size)}: it has to be [height, width], of at most {max_pixels} pixels")
        self._size = None if size is None else (size[0], size[1])
        self._max_total = max_total
        height, width = self._size or ("height", "width")
        self.signature = Signature.parse(f"image: BYTES[rows] -> pixels: UINT8[rows, {height}, {width}, 3]")

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        files = inputs["image"].tolist()
        return Tensors({"pixels": await self.in_thread(lambda: self._decode(files))})

    def _decode(self, files: list[bytes]) -> Array:
        opened = [self._reader.open(row, data) for row, data in enumerate(files)]
        height, width = self._size or (self._same_size(opened) if opened else (0, 0))
        what = f"{len(opened)} pictures of {height}x{width}"
        check_total(len(opened) * height * width * 3, self._max_total, what, "image")
        pixels = np.empty((len(opened), height, width, 3), np.uint8)
        for row, image in enumerate(opened):
            pixels[row] = self._reader.rgb(row, image, (height, width))
        return pixels

    def _same_size(self, images: list[Image]) -> tuple[int, int]:
        first = images[0]
        for row, image in enumerate(images):
            if image.size != first.size:
                raise self._reader.wrong(
                    row,
                    f"{image.height}x{image.width} pixels where others have {first.height}x{first.width}; "
                    "rows of one batch need one size (the node's `size` would resize them)",
                )
        return first.height, first.width
