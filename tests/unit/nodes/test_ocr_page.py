from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mesh import Array, Context, InvalidInput, SetupError, Tensors
from nodes.ocr_page import Orientation, Turn, TurnLine
from nodes.onnx import OnnxPredict
from tests.unit.nodes.given import fetched, files, page, picture_file, pixels_of

RNG = np.random.default_rng(0)
NODES = {"Orientation": Orientation, "Turn": Turn, "TurnLine": TurnLine}


def noise(height: int, width: int) -> Array:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


async def prepared(*pages: bytes, **options: Any) -> Array:
    async with Orientation(**options) as node:
        return (await node.preprocess(files("image", *pages), Context()))["x"]


async def turned(pages: list[bytes], quarters: list[int], **options: Any) -> list[bytes]:
    """Told that each page was turned clockwise by so many quarters."""
    scores = np.eye(4, dtype=np.float32)[quarters]
    async with Turn(**options) as node:
        answer = await node.preprocess(Tensors({**files("image", *pages), "scores": scores}), Context())
    return answer["image"].tolist()


async def test_the_model_tells_which_way_up_the_page_is_and_turning_it_gives_the_page_back() -> None:
    pages = [picture_file(page(quarters)) for quarters in range(4)]
    async with OnnxPredict(model=fetched("orientation.onnx")) as model:
        scores = (await model.predict(Tensors({"x": await prepared(*pages)}), Context()))["fetch_name_0"]
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]
    assert scores.max(1).min() > 0.9
    upright = await turned(pages, scores.argmax(1).tolist())
    assert all((pixels_of(data) == pixels_of(pages[0])).all() for data in upright)


async def test_one_colour_becomes_one_number_a_channel_by_the_mean_and_deviation_of_imagenet() -> None:
    x = (await prepared(picture_file(np.full((300, 400, 3), (255, 128, 0), np.uint8))))[0]
    for channel, (value, mean, deviation) in enumerate([(255, 0.485, 0.229), (128, 0.456, 0.224), (0, 0.406, 0.225)]):
        assert x[channel] == pytest.approx((value / 255 - mean) / deviation, abs=1e-5)


@pytest.mark.parametrize("quarters", [0, 1])
async def test_only_the_middle_of_a_long_page_is_looked_at(quarters: int) -> None:
    pixels = noise(60, 500)
    other = pixels.copy()
    other[:, :220] = other[:, 280:] = 0
    pages = [picture_file(np.ascontiguousarray(np.rot90(each, quarters))) for each in (pixels, other)]
    first, second = await prepared(*pages)
    assert (first == second).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (224, 224)])
async def test_a_page_of_any_shape_is_taken(height: int, width: int) -> None:
    x = await prepared(picture_file(noise(height, width)))
    assert x.shape == (1, 3, 224, 224)
    assert np.isfinite(x).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
async def test_turning_undoes_any_turn_bit_for_bit(height: int, width: int, quarters: int) -> None:
    pixels = noise(height, width)
    given = picture_file(np.ascontiguousarray(np.rot90(pixels, -quarters)))
    (back,) = await turned([given], [quarters])
    assert (pixels_of(back) == pixels).all()


async def test_a_page_that_is_upright_stays_the_file_it_is() -> None:
    jpeg = picture_file(noise(5, 7), "JPEG")
    assert await turned([jpeg, jpeg], [0, 2]) == [jpeg, (await turned([jpeg], [2]))[0]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
async def test_a_turned_page_keeps_its_colours(mode: str) -> None:
    given = Image.fromarray(noise(5, 7)).convert(mode)
    (data,) = await turned([picture_file(given)], [1])
    with Image.open(io.BytesIO(data)) as found:
        assert found.mode == mode
        assert found.tobytes() == given.transpose(Image.Transpose.ROTATE_90).tobytes()


async def test_a_cmyk_page_becomes_rgb() -> None:
    given = picture_file(Image.fromarray(noise(5, 7)).convert("CMYK"), "JPEG")
    (data,) = await turned([given], [2])
    assert (pixels_of(data) == np.rot90(pixels_of(given), 2)).all()


async def test_a_line_is_turned_upside_down_whatever_it_is() -> None:
    pixels = noise(4, 9)
    async with TurnLine() as node:
        answer = await node.preprocess(files("line", picture_file(pixels)), Context())
    assert (pixels_of(answer["line"][0]) == np.rot90(pixels, 2)).all()


@pytest.mark.parametrize(
    "bad", [b"", b"no picture", picture_file(noise(50, 50))[:-200]], ids=["nothing", "text", "cut"]
)
@pytest.mark.parametrize("node", NODES)
async def test_a_bad_row_is_named(node: str, bad: bytes) -> None:
    tensor = "line" if node == "TurnLine" else "image"
    request = dict(files(tensor, picture_file(noise(5, 5)), bad))
    if node == "Turn":
        request["scores"] = np.eye(4, dtype=np.float32)[[1, 1]]
    async with NODES[node]() as loaded:
        with pytest.raises(InvalidInput, match=f"^row 1: tensor '{tensor}': ") as caught:
            await loaded.preprocess(Tensors(request), Context())
    assert (caught.value.tensor, caught.value.row) == (tensor, 1)


async def test_what_is_too_large_is_refused() -> None:
    data = picture_file(noise(5, 7))
    with pytest.raises(InvalidInput, match=f"row 0: tensor 'image': {len(data)} bytes; at most 20 are taken"):
        await prepared(data, max_bytes=20)
    with pytest.raises(InvalidInput, match="row 0: tensor 'image': 5x7 pixels; at most 34 are taken"):
        await turned([data], [1], max_pixels=34)
    assert len(await turned([data, data], [1, 1], max_total=210)) == 2
    with pytest.raises(InvalidInput, match=r"^tensor 'image': the pictures so far make 210B of pixels; at most 209B"):
        await turned([data, data], [1, 1], max_total=209)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("argument", ["max_bytes", "max_pixels", "max_total", "workers"])
def test_settings_have_bounds(node: str, argument: str) -> None:
    if (node, argument) != ("Orientation", "max_total"):
        with pytest.raises(SetupError, match=f"{argument} is 0"):
            NODES[node](**{argument: 0})
