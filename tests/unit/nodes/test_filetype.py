from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import Array, Context, InvalidInput, SetupError, Signature, Tensors
from nodes.filetype import Features, Label
from nodes.onnx import OnnxPredict
from tests.unit.nodes.given import MODELS, fetched

ROOT = MODELS.parent


async def features(*files: bytes) -> Array:
    return (await Features().preprocess(Tensors({"file": np.array(files, dtype=object)}), Context()))["bytes"]


class TestFeatures:
    async def test_a_short_file_is_padded_to_the_right_and_to_the_left(self) -> None:
        row = (await features(b"  \n0123456789\n"))[0]
        # White space goes from the outer end of each half only.
        assert bytes(row[:11].astype(np.uint8)) == b"0123456789\n"
        assert set(row[11:1024].tolist()) == {256}
        assert set(row[1024:-13].tolist()) == {256}
        assert bytes(row[-13:].astype(np.uint8)) == b"  \n0123456789"

    async def test_a_long_file_gives_its_two_ends(self) -> None:
        data = b" " * 100 + bytes(range(33, 127)) * 100 + b"\n" * 50
        row = (await features(data))[0].astype(np.uint8).tobytes()
        assert row == data[100:1124] + data[-1074:-50]

    async def test_only_4096_bytes_from_each_end_are_looked_at(self) -> None:
        row = (await features(b"x" * 8 + b" " * 8000 + b"y" * 8))[0]
        assert bytes(row[:1024].astype(np.uint8)) == b"x" * 8 + b" " * 1016
        with pytest.raises(InvalidInput, match="row 0"):
            await features(b" " * 4096 + b"x" * 100)

    @pytest.mark.parametrize("data", [b"", b"1234567", b"   \n\n  1234567", b" " * 100])
    async def test_a_file_too_short_to_tell_is_refused_by_row(self, data: bytes) -> None:
        with pytest.raises(InvalidInput, match=r"row 1: tensor 'file': .*from 8 on") as caught:
            await features(b"long enough", data)
        assert (caught.value.tensor, caught.value.row) == ("file", 1)

    async def test_many_files_are_as_each_alone(self) -> None:
        files = [bytes([65 + i]) * (10 + 500 * i) for i in range(20)]
        assert (await features(*files)).tolist() == [(await features(file))[0].tolist() for file in files]

    @given(st.binary(min_size=8, max_size=10_000))
    async def test_every_value_is_a_byte_or_padding(self, data: bytes) -> None:
        try:
            rows = await features(data)
        except InvalidInput:
            assert len(data[:4096].lstrip()) < 8
            return
        assert rows.shape == (1, 2048)
        assert rows.dtype == np.int32
        assert 0 <= rows.min() <= rows.max() <= 256


class TestLabel:
    @pytest.fixture
    def three(self, tmp_path: Path) -> Path:
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"target_labels_space": ["python", "png", "c"]}))
        return path

    async def test_says_the_best_name_and_its_score(self, three: Path) -> None:
        node = Label(labels=three)
        assert node.signature == Signature.parse("scores: FP32[rows, 3] -> label: BYTES[rows], score: FP32[rows]")
        scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32)
        answer = await node.preprocess(Tensors({"scores": scores}), Context())
        assert answer == Tensors({"label": ["png", "python"], "score": np.array([0.7, 0.5], np.float32)})

    async def test_no_rows_give_no_labels(self, three: Path) -> None:
        answer = await Label(labels=three).preprocess(Tensors({"scores": np.zeros((0, 3), np.float32)}), Context())
        assert answer == Tensors({"label": np.empty(0, object), "score": np.empty(0, np.float32)})

    def test_the_digest_follows_the_file(self, three: Path) -> None:
        before = Label(labels=three).digest()
        assert Label(labels=three).digest() == before
        three.write_text(json.dumps({"target_labels_space": ["python", "png", "d"]}))
        assert Label(labels=three).digest() != before

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("{", "not JSON"),
            ("[]", "holds no list of names"),
            ("{}", "holds no list of names"),
            ('{"target_labels_space": []}', "holds no list of names"),
            ('{"target_labels_space": [1]}', "holds no list of names"),
            (" " * (1 << 20) + "{}", "larger than"),
        ],
    )
    def test_a_file_of_something_else_is_a_setup_error(self, tmp_path: Path, text: str, wrong: str) -> None:
        path = tmp_path / "labels.json"
        path.write_text(text)
        with pytest.raises(SetupError, match=rf"labels\.json: {wrong}"):
            Label(labels=path)

    def test_a_missing_file_is_a_setup_error(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match=r"labels\.json: cannot be read"):
            Label(labels=tmp_path / "labels.json")


async def test_magika_tells_the_files_of_this_repository() -> None:
    expected = {
        "nodes/filetype.py": "python",
        "mesh/tensors.py": "python",
        "pyproject.toml": "toml",
        "models/README.md": "markdown",
        "models/MODELS.json": "json",
        "models/digits_knn.onnx": "onnx",
        "LICENSE": "txt",
    }
    rows = await features(*[(ROOT / name).read_bytes() for name in expected])
    async with OnnxPredict(model=fetched("magika.onnx")) as model:
        assert model.signature == Signature.parse("bytes: INT32[rows, 2048] -> target_label: FP32[rows, 214]")
        scores = (await model.predict(Tensors({"bytes": rows}), Context()))["target_label"]
    answer = await Label(labels=fetched("magika.json")).preprocess(Tensors({"scores": scores}), Context())
    assert [label.decode() for label in answer["label"].tolist()] == list(expected.values())
    assert answer["score"][0] > 0.99
