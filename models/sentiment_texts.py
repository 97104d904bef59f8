"""The rated sentences, and which half of them models may learn from."""

from __future__ import annotations

import html
import tarfile

import numpy as np
from fetch import fetch

TEXTS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SOURCE = "film review sentences rated by people (Hutto and Gilbert, ICWSM 2014), in vaderSentiment 3.3.2"


def sentences() -> tuple[list[str], np.ndarray]:
    """10,605 texts and mean ratings from -4 to 4, shuffled: the file has the positive ones first."""
    (archive,) = fetch("sentiment-texts")
    with tarfile.open(archive) as opened:
        file = opened.extractfile(TEXTS)
        assert file is not None
        lines = file.read().decode().splitlines()
    rows = [line.split("\t", 2) for line in lines]
    order = np.random.default_rng(1).permutation(len(rows))
    texts = [" ".join(html.unescape(rows[index][2]).split()) for index in order]
    return texts, np.array([float(rows[index][1]) for index in order])


def halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to learn from, and indices to be measured on."""
    training = np.random.default_rng(0).permutation(count) < count // 2
    return np.flatnonzero(training), np.flatnonzero(~training)
