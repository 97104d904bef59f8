from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mesh import Array, Context, InvalidInput, SetupError, Signature, Tensors
from nodes.image import DecodeImage

RNG = np.random.default_rng(0)


def encoded(pixels: Array, format_: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, format_, **options)
    return out.getvalue()


def noise(height: int = 5, width: int = 7) -> Array:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


async def decode(*files: bytes, **settings: Any) -> Array:
    async with DecodeImage(**settings) as node:
        given = Tensors({"image": np.array(files, dtype=object)})
        return (await node.preprocess(given, Context()))["pixels"]


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"")


GOOD = [encoded(noise()), encoded(noise(), "JPEG")]


async def test_png_is_decoded_bit_for_bit() -> None:
    first, second = noise(), noise()
    assert (await decode(encoded(first), encoded(second))).tolist() == [first.tolist(), second.tolist()]


async def test_jpeg_is_decoded_closely() -> None:
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    pixels = (await decode(encoded(smooth, "JPEG", quality=95)))[0]
    assert np.abs(pixels.astype(int) - smooth).max() < 8


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
async def test_every_kind_of_png_becomes_rgb(mode: str) -> None:
    assert (await decode(encoded(noise(), mode=mode))).shape == (1, 5, 7, 3)


async def test_16_bit_grey_is_scaled_not_cut_off() -> None:
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert (await decode(encoded(grey)))[0, 0, :, 0].tolist() == [0, 0, 1, 128, 255]


async def test_cmyk_jpeg_becomes_rgb() -> None:
    assert (await decode(encoded(noise(), "JPEG", mode="CMYK"))).shape == (1, 5, 7, 3)


async def test_size_brings_pictures_together() -> None:
    pixels = await decode(encoded(noise(5, 7)), encoded(noise(20, 3)), size=[4, 6])
    assert pixels.shape == (2, 4, 6, 3)
    assert DecodeImage(size=[4, 6]).signature == Signature.parse("image: BYTES[rows] -> pixels: UINT8[rows, 4, 6, 3]")


async def test_without_size_the_row_that_differs_is_named() -> None:
    with pytest.raises(
        InvalidInput, match=r"row 2: tensor 'image': 7x5 pixels where others have 5x7; .*`size`"
    ) as caught:
        await decode(encoded(noise(5, 7)), encoded(noise(5, 7)), encoded(noise(7, 5)))
    assert (caught.value.tensor, caught.value.row) == ("image", 2)


async def test_no_rows_give_no_pictures() -> None:
    assert (await decode()).shape == (0, 0, 0, 3)
    assert (await decode(size=[4, 6])).shape == (0, 4, 6, 3)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (b"", "not a PNG or JPEG picture"),
        (b"GIF89a" + bytes(100), "not a PNG or JPEG picture"),
        (encoded(noise(), "GIF"), "not a PNG or JPEG picture"),
        (encoded(noise(50, 50))[:-200], "damaged or incomplete"),
        (encoded(noise(50, 50), "JPEG")[:-200], "damaged or incomplete"),
        (header_only(7, 5), "damaged or incomplete"),
    ],
    ids=["nothing", "gif-header", "gif", "png-cut-off", "jpeg-cut-off", "png-without-pixels"],
)
async def test_a_bad_row_is_named_and_tells_nothing_of_the_inside(bad: bytes, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await decode(encoded(noise()), bad, size=[4, 4])
    assert caught.value.text.startswith("tensor 'image': ")
    assert caught.value.text.endswith(text)


@pytest.mark.parametrize(("width", "height"), [(101, 100), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
async def test_a_picture_of_too_many_pixels_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(InvalidInput, match=r"row 0: .*10000"):
        await decode(header_only(width, height), max_pixels=10_000, size=[1, 1])


async def test_a_file_of_too_many_bytes_is_refused() -> None:
    data = encoded(noise())
    assert (await decode(data, max_bytes=len(data))).shape == (1, 5, 7, 3)
    with pytest.raises(InvalidInput, match=f"row 0: tensor 'image': {len(data)} bytes; at most {len(data) - 1}"):
        await decode(data, max_bytes=len(data) - 1)


async def test_pictures_that_are_too_many_together_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(InvalidInput, match=r"2 pictures of 100x100 make 58\.59KiB of pixels; at most 48\.83KiB"):
        await decode(header_only(100, 100), header_only(100, 100), max_total=50_000)


@pytest.mark.parametrize(
    "settings", [{"size": [0, 4]}, {"size": [4]}, {"size": [1 << 20, 1 << 20]}, {"max_bytes": 0}, {"workers": 0}]
)
def test_settings_have_bounds(settings: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=f"{next(iter(settings))} is"):
        DecodeImage(**settings)


def test_without_pillow_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from mesh import SetupError\nfrom nodes.image import DecodeImage\n"
        "try:\n    DecodeImage()\nexcept SetupError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "DecodeImage needs Pillow: pip install 'inference-mesh[examples]'"


@settings(max_examples=50, deadline=None)
@given(st.data())
async def test_damaged_pictures_are_decoded_or_refused_by_row_and_nothing_else(data: st.DataObject) -> None:
    good = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = await decode(bytes(good), size=[4, 4])
    except InvalidInput as error:
        assert error.row == 0  # noqa: PT017 - either outcome is right
    else:
        assert pixels.shape == (1, 4, 4, 3)
