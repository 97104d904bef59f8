"""The nodes that the sentiment topologies are made of, asked one after another without a mesh."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from fetch import FETCHED, fetch
from manifest import FOLDER

from mesh import Context, Tensors
from nodes.embedding import SentenceEmbedding
from nodes.onnx import OnnxPredict
from nodes.text import Lowercase

CONTEXT = Context()
ROWS = 256


def words(texts: list[str]) -> np.ndarray:
    """FP32[rows, 2]: what the cheap model says, from the text in lower case."""
    return asyncio.run(_words(texts))


async def _words(texts: list[str]) -> np.ndarray:
    lower = await Lowercase().preprocess(Tensors({"text": np.array(texts, object)[:, None]}), CONTEXT)
    async with OnnxPredict(model=FOLDER / "sentiment_words.onnx") as model:
        return (await model.predict(lower, CONTEXT))["probabilities"]


def vectors(texts: list[str]) -> np.ndarray:
    """FP32[rows, 384]: MiniLM's vectors."""
    return asyncio.run(_vectors(texts))


async def _vectors(texts: list[str]) -> np.ndarray:
    fetch("minilm")
    fetch("minilm-tokenizer")
    found: list[np.ndarray] = []
    async with embedding() as node:
        for start in range(0, len(texts), ROWS):
            part = np.array(texts[start : start + ROWS], object)
            found.append((await node.predict(Tensors({"text": part}), CONTEXT))["vector"])
    return np.concatenate(found)


def embedding() -> SentenceEmbedding:
    return SentenceEmbedding(model=FETCHED / "minilm.onnx", tokenizer=FETCHED / "minilm.json")


def head(rows: np.ndarray) -> np.ndarray:
    """FP32[rows, 2]: what the dear model says, from the vectors."""
    return asyncio.run(_head(rows))


async def _head(rows: np.ndarray) -> np.ndarray:
    async with OnnxPredict(model=FOLDER / "sentiment_head.onnx") as model:
        return (await model.predict(Tensors({"X": rows}), CONTEXT))["probabilities"]


def time_alone(texts: list[str]) -> dict[str, list[float]]:
    """Seconds that each sentence takes alone, by model."""
    return asyncio.run(_time_alone(texts))


async def _time_alone(texts: list[str]) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {"words": [], "minilm": []}
    async with (
        OnnxPredict(model=FOLDER / "sentiment_words.onnx") as cheap,
        embedding() as vector,
        OnnxPredict(model=FOLDER / "sentiment_head.onnx") as head,
    ):
        for text in texts:
            given = Tensors({"text": [[text]]})
            started = time.perf_counter()
            await cheap.predict(await Lowercase().preprocess(given, CONTEXT), CONTEXT)
            took["words"].append(time.perf_counter() - started)
            started = time.perf_counter()
            await head.predict(Tensors({"X": (await vector.predict(given, CONTEXT))["vector"]}), CONTEXT)
            took["minilm"].append(time.perf_counter() - started)
    return took
