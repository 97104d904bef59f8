"""Make the text-in sentiment model: `python models/make_sentiment.py`.

10,605 sentences of film reviews, each rated from -4 to 4 by twenty people or more (Hutto and Gilbert 2014; MIT),
which `fetch.py` takes out of the source distribution of vaderSentiment. A sentence is positive when its mean rating is
above 0. Half train, half test. The model takes text and gives probabilities, all in one file:
`text: BYTES[N, 1] -> label INT64[N], probabilities FP32[N, 2]` (not positive, positive).

It expects lower case. Doing that inside the graph would need ONNX's StringNormalizer, which onnxruntime refuses to load
on machines without the locale en_US.UTF-8; `nodes.text:Lowercase` does it before.

Needs the packages of the dependency group `models`. Running it again on the same machine gives the same bytes; another
processor or BLAS may fit coefficients that differ in the last bits, and so another digest.
"""

from __future__ import annotations

import io

import numpy as np
import onnxruntime as ort
from manifest import Made, keep, serialize
from sentiment_texts import SOURCE, halves, sentences
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

OPSETS = {"": 18, "ai.onnx.ml": 3}
SAMPLE_ROWS = 400


def fit(texts: list[str], positive: np.ndarray) -> Pipeline:
    words = TfidfVectorizer(lowercase=False, max_features=20000, sublinear_tf=True, token_pattern="[a-zA-Z]+")
    model = Pipeline([("words", words), ("say", LogisticRegression(max_iter=1000))])
    with threadpool_limits(1):
        return model.fit(texts, positive)


def convert(model: Pipeline) -> bytes:
    options = {id(model.steps[-1][1]): {"zipmap": False}}
    given = [("text", StringTensorType([None, 1]))]
    return serialize(to_onnx(model, initial_types=given, options=options, target_opset=OPSETS))


def sample(texts: list[str], ratings: np.ndarray) -> bytes:
    """Rating and text, one sentence a line, as they were written: not in lower case."""
    lines = io.StringIO()
    lines.write("rating\ttext\n")
    for text, rating in zip(texts[:SAMPLE_ROWS], ratings[:SAMPLE_ROWS], strict=True):
        lines.write(f"{rating:.4g}\t{text}\n")
    return lines.getvalue().encode()


def main() -> None:
    texts, ratings = sentences()
    lower = [text.lower() for text in texts]
    positive = (ratings > 0).astype(np.int64)
    train, test = halves(len(texts))

    model = fit([lower[index] for index in train], positive[train])
    data = convert(model)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    rest = [lower[index] for index in test]
    label = session.run(["label"], {"text": np.array(rest, dtype=object)[:, None]})[0]
    right = label == positive[test]
    measured = {
        "accuracy": round(float(right.mean()), 4),
        "rows": len(test),
        "positive": round(float(positive.mean()), 4),
        "same_as_scikit_learn": round(float((label == model.predict(rest)).mean()), 4),
    }
    kept = sample([texts[index] for index in test], ratings[test])
    in_sample = {"rows": SAMPLE_ROWS, "accuracy_of_sentiment_words": round(float(right[:SAMPLE_ROWS].mean()), 4)}
    script = "make_sentiment.py"
    made_from = f"Apache-2.0; made from {SOURCE} (MIT)"
    keep(
        [
            Made(
                name="sentiment_words.onnx",
                data=data,
                made_by=script,
                licence=made_from,
                source=SOURCE,
                measured=measured,
            ),
            Made(
                name="sentiment_sample.tsv",
                data=kept,
                made_by=script,
                licence="MIT (C.J. Hutto)",
                source=SOURCE,
                measured=in_sample,
            ),
        ]
    )


if __name__ == "__main__":
    main()
