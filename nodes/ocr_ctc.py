"""What a recogniser's scores spell: greedy decoding of connectionist temporal classification.

Graves et al., "Connectionist Temporal Classification", 2006, section 3.2: the best class of each step, repeats taken
once, blanks dropped. The score is PaddleOCR's (Apache-2.0): the mean score of the steps that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mesh import Array

__all__ = ["decode"]

_BLANK = 0


def decode(scores: Array, characters: Sequence[str]) -> tuple[str, float]:
    """Text and score of one line.

    Args:
        scores: FP32[steps, classes], after softmax; class 0 is the blank.
        characters: What each class stands for; that of the blank is never used.

    Returns:
        The text, and the mean score of its characters: 0 for the empty text.
    """
    best = scores.argmax(axis=1)
    kept = best != _BLANK
    kept[1:] &= best[1:] != best[:-1]
    if not kept.any():
        return "", 0.0
    classes: list[int] = best[kept].tolist()
    sure = scores[kept, best[kept]].mean(dtype=np.float64)
    return "".join([characters[index] for index in classes]), float(sure)
