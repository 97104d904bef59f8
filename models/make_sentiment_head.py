"""Make the sentiment model that stands on MiniLM's vectors: `python models/make_sentiment_head.py`.

`X: FP32[N, 384] -> label INT64[N], probabilities FP32[N, 2]` (not positive, positive): a logistic regression on what
`nodes.embedding:SentenceEmbedding` gives, learnt from the same half of the same sentences as sentiment_words.onnx. Its
own figure, and that of both models together, is for `measure_sentiment.py` to say.

Needs the packages of the dependency group `models` and, for MiniLM's vectors of 10,605 sentences, about a minute.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from manifest import Made, keep, serialize
from sentiment_nodes import vectors
from sentiment_texts import SOURCE, halves, sentences
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

OPSETS = {"": 18, "ai.onnx.ml": 3}


def main() -> None:
    texts, ratings = sentences()
    positive = (ratings > 0).astype(np.int64)
    train, test = halves(len(texts))
    x = vectors(texts)
    with threadpool_limits(1):
        model = LogisticRegression(C=3, max_iter=3000).fit(x[train], positive[train])
    data = serialize(to_onnx(model, x[:1], options={"zipmap": False}, target_opset=OPSETS))
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    label = session.run(["label"], {"X": x[test]})[0]
    measured = {
        "accuracy": round(float((label == positive[test]).mean()), 4),
        "rows": len(test),
        "same_as_scikit_learn": round(float((label == model.predict(x[test])).mean()), 4),
    }
    keep(
        [
            Made(
                name="sentiment_head.onnx",
                data=data,
                made_by="make_sentiment_head.py",
                licence=f"Apache-2.0; made from {SOURCE} (MIT), and vectors of all-MiniLM-L6-v2 (Apache-2.0)",
                source=SOURCE,
                measured=measured,
            )
        ]
    )


if __name__ == "__main__":
    main()
