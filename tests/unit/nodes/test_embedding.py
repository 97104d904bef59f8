from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from mesh import Array, Context, InvalidInput, SetupError, Signature, Tensors
from nodes.embedding import SentenceEmbedding
from nodes.onnx import OnnxPredict
from nodes.text import Lowercase
from tests.unit.nodes.given import MODELS, fetched

MEASURED: dict[str, Any] = json.loads((MODELS / "MEASURED.json").read_text())["sentiment"]
CONTEXT = Context()
# Another processor may round otherwise, and flip a row or two.
FLIPS = 0.006

pytestmark = pytest.mark.asyncio(loop_scope="module")


def made(**options: Any) -> SentenceEmbedding:
    return SentenceEmbedding(model=fetched("minilm.onnx"), tokenizer=fetched("minilm.json"), **options)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm() -> AsyncIterator[SentenceEmbedding]:
    async with made() as node:
        yield node


async def vectors(node: SentenceEmbedding, texts: list[Any]) -> Array:
    return (await node.predict(Tensors({"text": np.array([*texts, None], object)[:-1]}), CONTEXT))["vector"]


async def test_like_sentences_have_like_vectors(minilm: SentenceEmbedding) -> None:
    texts = [
        b"A man is eating food.",
        b"A man is eating a piece of bread.",
        b"The girl is carrying a baby.",
        b"A cheetah chases its prey.",
        b"The stock market fell sharply today.",
    ]
    found = await vectors(minilm, texts)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert (found @ found[0]).tolist() == pytest.approx([1, 0.753, -0.105, 0.192, 0.008], abs=0.002)


async def test_the_signature_is_that_of_the_model(minilm: SentenceEmbedding) -> None:
    assert minilm.signature == Signature.parse("text: BYTES[rows, ...] -> vector: FP32[rows, 384]")


async def test_a_text_may_stand_in_a_column_or_in_a_list(minilm: SentenceEmbedding) -> None:
    column = await minilm.predict(Tensors({"text": [["one"], ["two"]]}), CONTEXT)
    assert (column["vector"] == await vectors(minilm, [b"one", b"two"])).all()


async def test_rows_come_back_in_their_order_however_they_were_run_together() -> None:
    texts = [f"{'very ' * (index * 7 % 11)}good film".encode() for index in range(11)]
    async with made(batch=3) as few, made() as many:
        assert np.abs(await vectors(few, texts) - await vectors(many, texts)).max() < 1e-5


async def test_the_end_of_a_long_text_is_not_looked_at() -> None:
    async with made(max_tokens=5) as node:  # with the two marks that every text gets, three words
        first, second, other = await vectors(node, [b"a good film", b"a good film indeed", b"a good book"])
    assert (first == second).all()
    assert (first != other).any()


async def test_the_empty_text_has_a_vector_too(minilm: SentenceEmbedding) -> None:
    assert np.isfinite(await vectors(minilm, [b"", b" "])).all()


async def test_no_rows_give_no_vectors(minilm: SentenceEmbedding) -> None:
    assert (await vectors(minilm, [])).shape == (0, 384)


async def test_bad_rows_are_named(minilm: SentenceEmbedding) -> None:
    with pytest.raises(InvalidInput, match=r"^row 1: tensor 'text': byte 0 is not UTF-8"):
        await vectors(minilm, [b"fine", b"\xff"])
    with pytest.raises(InvalidInput, match=r"^row 1: tensor 'text': 65537 bytes; at most 65536 are taken") as caught:
        await vectors(minilm, [b"fine", bytes(65_537)])
    assert (caught.value.tensor, caught.value.row) == ("text", 1)
    with pytest.raises(InvalidInput, match=r"shape \[1, 2\]: one text a row is needed"):
        await minilm.predict(Tensors({"text": [["two", "texts"]]}), CONTEXT)


@pytest.mark.parametrize(
    "settings", [{"max_tokens": 0}, {"max_tokens": 8193}, {"batch": 0}, {"max_bytes": 0}, {"threads": 0}], ids=str
)
async def test_settings_have_bounds(settings: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=f"{next(iter(settings))} is"):
        made(**settings)


async def test_other_files_are_refused(tmp_path: Path) -> None:
    model, tokenizer = fetched("minilm.onnx"), fetched("minilm.json")
    with pytest.raises(SetupError, match=r"gone\.json: cannot be read: No such file"):
        SentenceEmbedding(model=model, tokenizer=tmp_path / "gone.json")
    with pytest.raises(SetupError, match=r"MODELS\.json: no tokenizer: "):
        SentenceEmbedding(model=model, tokenizer=MODELS / "MODELS.json")
    with pytest.raises(SetupError, match="takes X, and not attention_mask, input_ids, token_type_ids"):
        _ = SentenceEmbedding(model=MODELS / "digits_mlp.onnx", tokenizer=tokenizer).signature


async def test_the_digest_covers_model_and_tokenizer(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(fetched("minilm.json").read_bytes() + b"\n")
    digests = {
        made().digest(),
        made().digest(),
        SentenceEmbedding(model=fetched("minilm.onnx"), tokenizer=other).digest(),
        SentenceEmbedding(model=MODELS / "digits_mlp.onnx", tokenizer=fetched("minilm.json")).digest(),
    }
    assert len(digests) == 3


async def test_both_sentiment_models_together_beat_each_on_the_sample(minilm: SentenceEmbedding) -> None:
    lines = [line.split("\t") for line in (MODELS / "sentiment_sample.tsv").read_text().splitlines()[1:]]
    truth = np.array([float(rating) > 0 for rating, _ in lines])
    text = Tensors({"text": [[text] for _, text in lines]})
    async with (
        OnnxPredict(model=MODELS / "sentiment_words.onnx") as words,
        OnnxPredict(model=MODELS / "sentiment_head.onnx") as head,
    ):
        lower = await Lowercase().preprocess(text, CONTEXT)
        cheap = (await words.predict(lower, CONTEXT))["probabilities"]
        vector = (await minilm.predict(text, CONTEXT))["vector"]
        dear = (await head.predict(Tensors({"X": vector}), CONTEXT))["probabilities"]
    found = {
        name: ((said[:, 1] > said[:, 0]) == truth).mean()
        for name, said in (("words", cheap), ("minilm", dear), ("mean", cheap + dear))
    }
    assert found == pytest.approx(MEASURED["accuracy_on_sample"], abs=FLIPS)
    assert found["mean"] > max(found["words"], found["minilm"])
