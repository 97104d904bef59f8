"""Make the digit models out of the pictures that scikit-learn ships: `python models/make_digits.py`.

1,797 handwritten digits of 8x8 pixels, divided by 16; half train, half test (899 rows), stratified, seed 0. Eight
models of one signature, `X: FP32[N, 64] -> label INT64[N], probabilities FP32[N, 10]`: four that see the whole picture,
from a cheap one to a dear one, and four that see one half of it each.

Needs the packages of the dependency group `models`. Running it again on the same machine gives the same bytes; another
processor or BLAS may fit coefficients that differ in the last bits, and so other digests.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime as ort
from manifest import Made, keep, serialize
from skl2onnx import to_onnx
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

SEED = 0
OPSETS = {"": 18, "ai.onnx.ml": 3}
LICENCE = "Apache-2.0; made from data under CC BY 4.0"
SOURCE = "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI), as scikit-learn 1.9.1 ships it"
PIXELS = np.arange(64).reshape(8, 8)
HALVES = {"left": PIXELS[:, :4], "right": PIXELS[:, 4:], "top": PIXELS[:4], "bottom": PIXELS[4:]}


def half(columns: np.ndarray) -> Pipeline:
    """A model that takes the whole picture and looks at one half of it, so that all four can be fed the same tensor."""
    chosen = ColumnTransformer([("half", "passthrough", columns.ravel().tolist())])
    return Pipeline([("look", chosen), ("say", LogisticRegression(C=10, max_iter=800))])


def models() -> dict[str, ClassifierMixin]:
    # SVC(probability=True) goes in scikit-learn 1.11; calibrating it from outside is what its notice recommends.
    calibrated = CalibratedClassifierCV(SVC(gamma=0.32, C=10), ensemble=False, cv=5)
    return {
        "logreg": LogisticRegression(max_iter=2000),
        "mlp": MLPClassifier((48,), max_iter=500, random_state=SEED),
        "svc": calibrated,
        "knn": KNeighborsClassifier(3),
        **{name: half(columns) for name, columns in HALVES.items()},
    }


def convert(model: ClassifierMixin, rows: np.ndarray) -> bytes:
    with warnings.catch_warnings():
        # skl2onnx looks at every attribute of an SVC, deprecated ones too.
        warnings.filterwarnings("ignore", category=FutureWarning, message="Attribute `prob")
        return serialize(to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=OPSETS))


def main() -> None:
    x, y = load_digits(return_X_y=True)
    rows = (x / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(rows, y, test_size=0.5, random_state=SEED, stratify=y)
    made: list[Made] = []
    for name, model in models().items():
        with threadpool_limits(1):
            model.fit(train_x, train_y)
        data = convert(model, train_x)
        session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        label = session.run(["label"], {"X": test_x})[0]
        measured = {
            "accuracy": round(float((label == test_y).mean()), 4),
            "rows": len(test_y),
            "same_as_scikit_learn": round(float((label == model.predict(test_x)).mean()), 4),
        }
        made.append(
            Made(
                name=f"digits_{name}.onnx",
                data=data,
                made_by="make_digits.py",
                licence=LICENCE,
                source=SOURCE,
                measured=measured,
            )
        )
    # The rows that no model has seen: `image` as scikit-learn gives it, 0 to 16, so before dividing.
    sample = io.BytesIO()
    np.savez_compressed(sample, image=test_x * np.float32(16), label=test_y.astype(np.int64))
    made.append(
        Made(
            name="digits_sample.npz",
            data=sample.getvalue(),
            made_by="make_digits.py",
            licence="CC BY 4.0",
            source=SOURCE,
            measured={"rows": len(test_y)},
        )
    )
    keep(made)


if __name__ == "__main__":
    main()
