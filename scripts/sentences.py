"""The film review sentences that no model here has learnt from, for what is measured on them."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mesh.tensors import Array

__all__ = ["sentences"]

MODELS = Path(__file__).resolve().parent.parent / "models"


@cache
def sentences() -> tuple[Array, Array]:
    """BYTES[5303, 1] and whether each is positive."""
    sys.path.append(str(MODELS))
    known: Any = importlib.import_module("sentiment_texts")  # beside the scripts that make the models, in no package
    texts, ratings = known.sentences()
    _, test = known.halves(len(texts))
    text = np.array([texts[index].encode() for index in test], object)[:, None]
    return text, (ratings[test] > 0).astype(np.int64)
