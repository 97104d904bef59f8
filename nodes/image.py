"""Pictures: files to pixels. Needs Pillow (`pip install inference-mesh[examples]`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from mesh import Array, Context, InvalidInput, Preprocess, SetupError, Signature, Size, Tensors
from mesh.units import format_size
from nodes.threads import Threads, check_threads

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DecodeImage"]

_FORMATS = ("PNG", "JPEG")
_MIB = 1 << 20


class DecodeImage(Preprocess):
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
        max_bytes: Size = 16 * _MIB,
        max_pixels: int = 1 << 24,
        max_total: Size = 256 * _MIB,
        workers: int = 1,
    ) -> None:
        try:
            import PIL.Image
        except ImportError as error:
            raise SetupError("DecodeImage needs Pillow: pip install 'inference-mesh[examples]'") from error
        self._pillow = PIL.Image
        for name, value in (("max_bytes", max_bytes), ("max_pixels", max_pixels), ("max_total", max_total)):
            if value < 1:
                raise SetupError(f"{name} is {value}: it has to be at least 1")
        if size is not None and (len(size) != 2 or min(size) < 1 or size[0] * size[1] > max_pixels):
            raise SetupError(f"size is {list(size)}: it has to be [height, width], of at most {max_pixels} pixels")
        self._size = None if size is None else (size[0], size[1])
        self._max_bytes, self._max_pixels, self._max_total = max_bytes, max_pixels, max_total
        self._workers = check_threads(workers, "workers")
        self._threads: Threads | None = None
        height, width = self._size or ("height", "width")
        self.signature = Signature.parse(f"image: BYTES[rows] -> pixels: UINT8[rows, {height}, {width}, 3]")

    async def __aenter__(self) -> Self:
        self._threads = Threads(self._workers, "decode")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.close()

    async def preprocess(self, inputs: Tensors, context: Context) -> Tensors:
        if self._threads is None:
            raise RuntimeError("the node is not loaded: use `async with node:`")
        files = inputs["image"].tolist()
        return Tensors({"pixels": await self._threads.run(lambda: self._decode(files))})

    def _decode(self, files: list[bytes]) -> Array:
        opened = [self._open(row, data) for row, data in enumerate(files)]
        height, width = self._size or (_same_size(opened) if opened else (0, 0))
        if (total := len(opened) * height * width * 3) > self._max_total:
            raise InvalidInput(
                f"tensor 'image': {len(opened)} pictures of {height}x{width} make {format_size(total)} of pixels; "
                f"at most {format_size(self._max_total)} are taken at once",
                tensor="image",
            )
        pixels = np.empty((len(opened), height, width, 3), np.uint8)
        for row, image in enumerate(opened):
            try:
                pixels[row] = np.asarray(self._rgb(image, (height, width)))
            except MemoryError:
                raise
            except Exception as error:  # Pillow raises a dozen kinds for damaged files
                raise _wrong(row, "the picture is damaged or incomplete") from error
        return pixels

    def _open(self, row: int, data: bytes) -> Image:
        """A picture of which only the header was read."""
        if len(data) > self._max_bytes:
            raise _wrong(row, f"{len(data)} bytes; at most {self._max_bytes} are taken")
        try:
            image = self._pillow.open(io.BytesIO(data), formats=_FORMATS)
        except (self._pillow.DecompressionBombError, self._pillow.DecompressionBombWarning) as error:
            raise _wrong(row, f"more than the {self._max_pixels} pixels that are taken") from error
        except Exception as error:
            raise _wrong(row, "not a PNG or JPEG picture") from error
        if image.width * image.height > self._max_pixels:
            raise _wrong(row, f"{image.height}x{image.width} pixels; at most {self._max_pixels} are taken")
        return image

    def _rgb(self, image: Image, size: tuple[int, int]) -> Image:
        if image.mode.startswith("I"):
            # Pillow would cut 16-bit grey off at 255 instead of scaling it.
            image = self._pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        rgb = image.convert("RGB")
        height, width = size
        return rgb if rgb.size == (width, height) else rgb.resize((width, height), self._pillow.Resampling.BILINEAR)


def _same_size(images: list[Image]) -> tuple[int, int]:
    first = images[0]
    for row, image in enumerate(images):
        if image.size != first.size:
            raise _wrong(
                row,
                f"{image.height}x{image.width} pixels where row 0 has {first.height}x{first.width}; "
                "rows of one batch need one size (the node's `size` would resize them)",
            )
    return first.height, first.width


def _wrong(row: int, what: str) -> InvalidInput:
    return InvalidInput(f"tensor 'image', row {row}: {what}", tensor="image", row=row)
