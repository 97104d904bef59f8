"""Make the digit models out of the pictures that scikit-learn ships: `python models/make_digits.py`.

1,797 handwritten digits of 8x8 pixels, divided by 16; half train, half test (899 rows), stratified, seed 0. Eight
models of one signature, `X: FP32[N, 64] -> label INT64[N], probabilities FP32[N, 10]`: four that see the whole picture,
from a cheap one to a dear one, and four that see one half of it each. Two more only make sense one after the other: the
picture to 16 numbers that tell it best, and those numbers to a digit.

Needs the packages of the dependency group `models`. Running it again on the same machine gives the same bytes; another
processor or BLAS may fit coefficients that differ in the last bits, and so other digests.
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from manifest import Made, keep, serialize
from skl2onnx import to_onnx
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
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


class Half(NamedTuple):
    """Rows to learn from, and rows to be measured on."""

    train_x: np.ndarray
    test_x: np.ndarray
    train_y: np.ndarray
    test_y: np.ndarray


def half_sighted(columns: np.ndarray) -> Pipeline:
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
        **{name: half_sighted(columns) for name, columns in HALVES.items()},
    }


def convert(model: ClassifierMixin, rows: np.ndarray) -> bytes:
    with warnings.catch_warnings():
        # skl2onnx looks at every attribute of an SVC, deprecated ones too.
        warnings.filterwarnings("ignore", category=FutureWarning, message="Attribute `prob")
        return serialize(to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=OPSETS))


def run(data: bytes, output: str, rows: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run([output], {"X": rows})[0]


def classifier(name: str, model: ClassifierMixin, half: Half) -> Made:
    """Fit one classifier, convert it, and measure what was converted."""
    with threadpool_limits(1):
        model.fit(half.train_x, half.train_y)
    data = convert(model, half.train_x)
    label = run(data, "label", half.test_x)
    measured = {
        "accuracy": round(float((label == half.test_y).mean()), 4),
        "rows": len(half.test_y),
        "same_as_scikit_learn": round(float((label == model.predict(half.test_x)).mean()), 4),
    }
    return Made(
        name=f"digits_{name}.onnx",
        data=data,
        made_by="make_digits.py",
        licence=LICENCE,
        source=SOURCE,
        measured=measured,
    )


def embedding(half: Half) -> tuple[Made, Half]:
    """The picture to 16 numbers (principal components), and the rows as those numbers."""
    with threadpool_limits(1):
        model = PCA(16, svd_solver="full").fit(half.train_x)
    data = serialize(to_onnx(model, half.train_x[:1], target_opset=OPSETS))
    kept = round(float(model.explained_variance_ratio_.sum()), 4)
    made = Made(
        name="digits_embed.onnx",
        data=data,
        made_by="make_digits.py",
        licence=LICENCE,
        source=SOURCE,
        measured={"variance_kept": kept},
    )
    vectors = (run(data, "variable", half.train_x), run(data, "variable", half.test_x))
    return made, Half(vectors[0], vectors[1], half.train_y, half.test_y)


def main() -> None:
    x, y = load_digits(return_X_y=True)
    rows = (x / 16).astype(np.float32)
    half = Half(*train_test_split(rows, y, test_size=0.5, random_state=SEED, stratify=y))
    embed, embedded = embedding(half)
    made = [embed, classifier("head", MLPClassifier((32,), max_iter=800, random_state=SEED), embedded)]
    made += [classifier(name, model, half) for name, model in models().items()]
    # The rows that no model has seen: `image` as scikit-learn gives it, 0 to 16, so before dividing.
    sample = io.BytesIO()
    np.savez_compressed(sample, image=half.test_x * np.float32(16), label=half.test_y.astype(np.int64))
    made.append(
        Made(
            name="digits_sample.npz",
            data=sample.getvalue(),
            made_by="make_digits.py",
            licence="CC BY 4.0",
            source=SOURCE,
            measured={"rows": len(half.test_y)},
        )
    )
    keep(made)


if __name__ == "__main__":
    main()
