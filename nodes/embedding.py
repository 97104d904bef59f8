"""Sentences as vectors. Needs `tokenizers` (`pip install inference-mesh[examples]`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from mesh import Array, Context, InvalidInput, ModelFile, Predict, SetupError, Signature, Size, Tensors, TensorSpec
from nodes.onnx_session import OwnModel, Run
from nodes.text import as_text

__all__ = ["SentenceEmbedding"]

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_MAX_TOKENIZER_BYTES = 64 << 20
_MAX_TOKENS = 8192
_MAX_BATCH = 1024


class SentenceEmbedding(Predict):
    """A vector of unit length for each text, by a BERT-like model such as MiniLM: the mean over its tokens.

    One node from text to vector, because the sentences of a batch are padded to the longest: what is in between has
    another width in every batch, and is as many times larger than the vector as there are tokens. Rows of like length
    are run together, so that little is padded. The end of a text of too many tokens is not looked at.

    Args:
        model: `input_ids, attention_mask, token_type_ids: INT64[n, t]` to `FP32[n, t, width]`, the first output.
        tokenizer: The `tokenizer.json` that belongs to it.
        max_tokens: Tokens of a text that are looked at.
        max_bytes: The longest text, in bytes of UTF-8.
        batch: Rows that are run together at most.
        providers: onnxruntime execution providers, best first. One that cannot be set up is an error, never replaced.
        threads: Threads that onnxruntime uses inside one run.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range, or the tokenizer cannot be read. (The model itself is opened when
            `signature` is first read.)
    """

    def __init__(
        self,
        *,
        model: ModelFile,
        tokenizer: ModelFile,
        max_tokens: int = 128,
        max_bytes: Size = 64 << 10,
        batch: int = 32,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        workers: int = 1,
    ) -> None:
        for name, value, most in (("max_tokens", max_tokens, _MAX_TOKENS), ("batch", batch, _MAX_BATCH)):
            if not 1 <= value <= most:
                raise SetupError(f"{name} is {value}: it has to be from 1 to {most}")
        if max_bytes < 1:
            raise SetupError(f"max_bytes is {max_bytes}: it has to be at least 1")
        self._path, self._max_bytes, self._batch = model, max_bytes, batch
        self._tokenizer, self._tokenizer_digest = _tokenizer(tokenizer, max_tokens)
        self._model = OwnModel(model, _INPUTS, providers=providers, threads=threads, workers=workers)

    @property
    def signature(self) -> Signature:  # pyright: ignore[reportIncompatibleVariableOverride]
        """From one text a row, to as many numbers as the model gives. The first read opens the model.

        Raises:
            SetupError: The model cannot be opened, or is of another kind.
        """
        vector = TensorSpec("FP32", ("rows", self._width()))
        return Signature({"text": TensorSpec("BYTES", ("rows", "..."))}, {"vector": vector})

    def _width(self) -> int:
        shape = self._model.session.get_outputs()[0].shape
        if len(shape) != 3 or not isinstance(shape[2], int):
            raise SetupError(f"{self._path}: gives {shape} where [n, t, width] is needed, the width a number")
        return shape[2]

    def digest(self) -> str:
        return hashlib.sha256(f"{self._model.digest()}\n{self._tokenizer_digest}".encode()).hexdigest()

    async def __aenter__(self) -> Self:
        await self._model.open(lambda run: self._vectors(["text"], self._width(), run))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._model.close()

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        text = inputs["text"]
        if text.size != len(text):
            raise InvalidInput(f"tensor 'text' has shape {list(text.shape)}: one text a row is needed", tensor="text")
        for row, data in enumerate(text.ravel().tolist()):
            if len(data) > self._max_bytes:
                raise _wrong(row, f"{len(data)} bytes; at most {self._max_bytes} are taken")
        texts = as_text("text", text)
        return Tensors({"vector": await self._model.run(lambda run: self._vectors(texts, self._width(), run))})

    def _vectors(self, texts: list[str], width: int, run: Run) -> Array:
        # One at a time: a batch would have the tokenizer start a thread a core.
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        for row, ids in enumerate(tokens):
            if not ids:
                raise _wrong(row, "a text without any token")
        vectors = np.empty((len(texts), width), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            vectors[rows] = _pooled([tokens[row] for row in rows], run)
        return vectors


def _pooled(tokens: list[list[int]], run: Run) -> Array:
    """The mean over each row's own tokens, made unit length: FP32[n, width]."""
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)  # what it is padded with is masked, so any id does
    mask = np.zeros_like(ids)
    for row, found in enumerate(tokens):
        ids[row, : len(found)] = found
        mask[row, : len(found)] = 1
    hidden = run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    weight = mask[:, :, None].astype(np.float32)
    mean = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _tokenizer(path: Path, max_tokens: int) -> tuple[Tokenizer, str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKENIZER_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_TOKENIZER_BYTES:
        raise SetupError(f"{path}: larger than {_MAX_TOKENIZER_BYTES} bytes; a tokenizer is a JSON file")
    try:
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.enable_truncation(max_tokens)
    except Exception as error:
        raise SetupError(f"{path}: no tokenizer: {error}") from error
    tokenizer.no_padding()
    return tokenizer, hashlib.sha256(data).hexdigest()


def _wrong(row: int, what: str) -> InvalidInput:
    return InvalidInput(f"tensor 'text': {what}", tensor="text", row=row)
