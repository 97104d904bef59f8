"""A page through the nodes that read it, one after another."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from mesh import Array, Branches, Context, InvalidInput, Predict, SetupError, Tensors, Unavailable
from nodes import ocr_boxes
from nodes.ocr_boxes import size_of
from nodes.ocr_lines import FindLines, ReadLines
from nodes.ocr_page import Orientation, Turn, TurnLine
from nodes.onnx import OnnxPredict
from nodes.surest import Surest
from tests.unit.nodes.given import MODELS, TEXT_OF_PAGE, fetched, files, page, picture_file, pixels_of
from tests.unit.nodes.onnx_writer import FLOAT, identity

BLANK = picture_file(np.full((100, 200, 3), 255, np.uint8))
CONTEXT = Context()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def find() -> AsyncIterator[FindLines]:
    async with FindLines(model=fetched("ocr_lines.onnx")) as node:
        yield node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def read() -> AsyncIterator[ReadLines]:
    async with ReadLines(model=fetched("ocr_text.onnx")) as node:
        yield node


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def lines_of(find: FindLines, *pages: bytes) -> Tensors:
    return await find.predict(files("image", *pages), CONTEXT)


async def read_texts(read: ReadLines, lines: Array) -> tuple[list[str], Array]:
    answer = await read.predict(Tensors({"line": lines}), CONTEXT)
    return [text.decode() for text in answer["text"]], answer["score"]


async def test_the_page_turned_any_of_four_ways_is_read_exactly(find: FindLines, read: ReadLines) -> None:
    pages = files("image", *(picture_file(page(quarters)) for quarters in range(4)))
    async with Orientation() as prepare, OnnxPredict(model=fetched("orientation.onnx")) as orientation, Turn() as turn:
        said = await orientation.predict(await prepare.preprocess(pages, CONTEXT), CONTEXT)
        upright = await turn.preprocess(Tensors({**pages, "scores": said["fetch_name_0"]}), CONTEXT)
    found = await find.predict(upright, CONTEXT)
    texts, scores = await read_texts(read, found["line"])
    assert texts == TEXT_OF_PAGE * 4
    assert found.sources is not None
    assert found.sources.tolist() == [row for row in range(4) for _ in TEXT_OF_PAGE]
    assert scores.min() > 0.95


async def test_lines_that_are_read_badly_are_turned_and_read_again(find: FindLines, read: ReadLines) -> None:
    pages = (picture_file(page()), picture_file(page(2)))
    found = await lines_of(find, *pages)
    first = await read.predict(Tensors({"line": found["line"]}), CONTEXT)
    scores = first["score"]
    again = np.flatnonzero(scores < 0.9)
    # None of the page that is upright, and all of the other one, whose last line comes first.
    assert again.tolist() == list(range(7, 14))
    assert scores[again].max() < 0.82
    async with TurnLine() as turn:
        turned = await turn.preprocess(Tensors({"line": found["line"][again]}), CONTEXT)
    second = Tensors(await read.predict(turned, CONTEXT), sources=again)
    better = await Surest().aggregate(Branches({"first": first, "second": second}), CONTEXT)
    assert [text.decode() for text in better["text"]] == TEXT_OF_PAGE + TEXT_OF_PAGE[::-1]
    assert better["score"].min() > 0.95


async def test_a_page_without_text_gives_no_row_and_the_others_keep_their_sources(find: FindLines) -> None:
    found = await lines_of(find, BLANK, picture_file(page()), BLANK)
    assert found.sources is not None
    assert found.sources.tolist() == [1] * 7
    nothing = await lines_of(find, BLANK)
    assert (nothing["line"].shape, nothing["box"].shape) == ((0,), (0, 4, 2))


async def test_boxes_are_in_the_pixels_of_the_page_however_large_it_is(find: FindLines) -> None:
    small, large = page(), page().resize((384 * 5, 191 * 5), Image.Resampling.BICUBIC)
    first, second = [(await lines_of(find, picture_file(image)))["box"] for image in (small, large)]
    assert first.shape == second.shape == (7, 4, 2)
    # Of the last line the detector sees more or less, by its size on the page: only heights can be compared.
    heights = first[:, :, 1].mean(axis=1)
    assert np.abs(heights * 5 - second[:, :, 1].mean(axis=1)).max() < 5 * 4
    assert (np.diff(heights) > 0).all()


async def test_a_line_is_the_inside_of_its_box(find: FindLines) -> None:
    found = await lines_of(find, picture_file(page()))
    for data, box in zip(found["line"], found["box"], strict=True):
        assert pixels_of(data).shape == (*size_of(box), 3)


async def test_what_holds_no_text_is_read_as_nothing_with_score_0(read: ReadLines) -> None:
    assert await read_texts(read, files("line", BLANK)["line"]) == ([""], np.zeros(1, np.float32))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 16_384), (16_384, 1), (40, 6000)])
async def test_pictures_of_any_shape_are_looked_at(find: FindLines, read: ReadLines, height: int, width: int) -> None:
    data = picture_file(np.zeros((height, width, 3), np.uint8))
    assert (await lines_of(find, data)).rows == 0
    texts, _ = await read_texts(read, files("line", data)["line"])
    assert len(texts) == 1


async def test_a_side_too_long_is_refused(find: FindLines) -> None:
    with pytest.raises(InvalidInput, match=r"^row 1: tensor 'image': 1x16385 pixels; no side may be over 16384"):
        await lines_of(find, BLANK, picture_file(np.zeros((1, 16_385, 3), np.uint8)))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_lines": 6}, r"row 1: tensor 'image': 7 lines; at most 6 are looked for"),
        ({"max_total": 50_000}, r"tensor 'image': the lines so far make .* at most 48\.83KiB"),
        ({"max_bytes": 2000}, r"row 1: tensor 'image': \d+ bytes; at most 2000"),
        ({"max_pixels": 20_000}, r"row 1: tensor 'image': 191x384 pixels; at most 20000"),
    ],
)
async def test_more_than_is_taken_is_refused_by_row(settings: dict[str, Any], text: str) -> None:
    async with FindLines(model=fetched("ocr_lines.onnx"), **settings) as node:
        with pytest.raises(InvalidInput, match=text):
            await lines_of(node, BLANK, picture_file(page()))


async def test_a_bad_line_is_named(read: ReadLines) -> None:
    with pytest.raises(InvalidInput, match=r"^row 1: tensor 'line': not a PNG or JPEG picture") as caught:
        await read.predict(files("line", BLANK, b"no picture"), CONTEXT)
    assert (caught.value.tensor, caught.value.row) == ("line", 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"shortest": 31},
        {"shortest": 2000},
        {"longest": 20_000},
        {"max_lines": 0},
        {"max_total": 0},
        {"max_bytes": 0},
        {"threads": 0},
        {"workers": 65},
    ],
    ids=str,
)
async def test_settings_have_bounds(settings: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=rf"{next(iter(settings))} (is|\d)"):
        FindLines(model=Path("lines.onnx"), **settings)


async def test_another_model_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    same = tmp_path / "same.onnx"
    same.write_bytes(identity(FLOAT, ["n", 3, "h", "w"]))
    refused: list[tuple[Predict, str]] = [
        (FindLines(model=tmp_path / "gone.onnx"), "there is no such model file"),
        (FindLines(model=MODELS / "digits_mlp.onnx"), "takes X, and not x"),
        (FindLines(model=fetched("orientation.onnx")), "cannot answer as this node needs it"),
        (ReadLines(model=same), "48 classes, and no characters for them under `character`"),
        (ReadLines(model=fetched("ocr_lines.onnx")), "cannot answer as this node needs it|characters for them"),
    ]
    for node, text in refused:
        with pytest.raises(SetupError, match=text):
            await node.__aenter__()


async def test_the_digest_is_that_of_the_model(tmp_path: Path) -> None:
    copy = shutil.copy(fetched("ocr_lines.onnx"), tmp_path)
    assert FindLines(model=Path(copy)).digest() == FindLines(model=fetched("ocr_lines.onnx")).digest() != ""
    assert ReadLines(model=fetched("ocr_text.onnx")).digest() != FindLines(model=Path(copy)).digest()


async def test_a_node_that_is_not_loaded_says_so() -> None:
    with pytest.raises(RuntimeError, match="not loaded"):
        await FindLines(model=fetched("ocr_lines.onnx")).predict(files("image", BLANK), CONTEXT)


async def test_a_call_of_many_pages_ends_with_its_caller_and_with_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = threading.Event()

    def detector_input(*given: Any) -> Array:
        looking.set()
        return ocr_boxes.detector_input(*given)

    monkeypatch.setattr("nodes.ocr_lines.detector_input", detector_input)
    node = FindLines(model=fetched("ocr_lines.onnx"))

    async def started() -> asyncio.Task[Tensors]:
        looking.clear()
        call = asyncio.create_task(node.predict(files("image", *[picture_file(page())] * 400), CONTEXT))
        assert await asyncio.to_thread(looking.wait, 10)
        return call

    async with node:
        call = await started()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):  # 400 pages would take 20 seconds: the thread is free again
            assert (await lines_of(node, BLANK)).rows == 0
        call = await started()
    with pytest.raises(Unavailable, match="being unloaded"):
        await call
