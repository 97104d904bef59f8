"""How good the sentiment models are, alone and together: `python models/measure_sentiment.py`.

Asks the very nodes that the topologies are made of, on the half of the sentences that no model has learnt from, and
writes what it finds to MEASURED.json under `sentiment`. Needs `make setup`; takes about a minute and a half.
"""

from __future__ import annotations

import numpy as np
from manifest import record
from sentiment_nodes import head, time_alone, vectors, words
from sentiment_texts import halves, sentences

THRESHOLDS = (0.6, 0.7, 0.8)
SAMPLE_ROWS = 400
"""The rows that sentiment_sample.tsv holds, which come first."""


def main() -> None:
    texts, ratings = sentences()
    _, test = halves(len(texts))
    rest = [texts[index] for index in test]
    truth = (ratings[test] > 0).astype(np.int64)
    cheap, dear = words(rest), head(vectors(rest))
    mean = (cheap + dear) / 2

    def accuracy(probabilities: np.ndarray) -> float:
        right = probabilities.argmax(axis=1) == truth[: len(probabilities)]
        return round(float(right.mean()), 4)

    models = {"words": cheap, "minilm": dear, "mean": mean}
    found: dict[str, object] = {
        "rows": len(truth),
        "standard_error": round(float(np.sqrt(0.8 * 0.2 / len(truth))), 4),
        "accuracy": {name: accuracy(said) for name, said in models.items()},
        "accuracy_on_sample": {name: accuracy(said[:SAMPLE_ROWS]) for name, said in models.items()},
    }
    found["cascade"] = {
        str(threshold): {
            "go_on": round(float((unsure := cheap.max(axis=1) < threshold).mean()), 4),
            "accuracy_mean_of_both": accuracy(np.where(unsure[:, None], mean, cheap)),
            "accuracy_minilm_alone": accuracy(np.where(unsure[:, None], dear, cheap)),
        }
        for threshold in THRESHOLDS
    }
    found["alone_ms"] = {
        name: round(float(np.median(seconds)) * 1e3, 2) for name, seconds in time_alone(rest[:200]).items()
    }
    record("sentiment", found)


if __name__ == "__main__":
    main()
