"""How good the digit models are, alone and together: `python models/measure_digits.py`.

On the 899 pictures that no model has learnt from. Writes what it finds to MEASURED.json under `digits`. Needs only
`make setup`; takes a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from manifest import FOLDER, record

from mesh import Context, Tensors
from nodes.onnx import OnnxPredict
from nodes.tabular import Scale

HALVES = ("left", "right", "top", "bottom")
THRESHOLDS = (0.8, 0.9)
FLOOR = 1e-6
"""Added before a logarithm: a half that gives a digit no chance at all must not be able to forbid it."""


async def probabilities(name: str, image: np.ndarray) -> np.ndarray:
    scaled = await Scale(divide_by=16).preprocess(Tensors({"x": image}), Context())
    async with OnnxPredict(model=FOLDER / f"digits_{name}.onnx", outputs=["probabilities"]) as model:
        return (await model.predict(Tensors({"X": scaled["x"]}), Context()))["probabilities"]


def arithmetic(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(parts, axis=0)


def geometric(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.exp(np.mean([np.log(part + FLOOR) for part in parts], axis=0))


def votes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One vote each; between equals the digit that they give more probability together."""
    return sum(np.eye(10)[part.argmax(axis=1)] for part in parts) + arithmetic(parts) / 100


JOINS = {"arithmetic": arithmetic, "geometric": geometric, "votes": votes}


def main() -> None:
    sample = np.load(FOLDER / "digits_sample.npz")
    truth = sample["label"]

    async def all_models() -> dict[str, np.ndarray]:
        return {name: await probabilities(name, sample["image"]) for name in (*HALVES, "logreg", "svc")}

    said = asyncio.run(all_models())

    def accuracy(found: np.ndarray) -> float:
        return round(float((found.argmax(axis=1) == truth).mean()), 4)

    together: dict[str, dict[str, float]] = {}
    for count in (2, 3, 4):
        for names in combinations(HALVES, count):
            parts = [said[name] for name in names]
            together["+".join(names)] = {how: accuracy(join(parts)) for how, join in JOINS.items()}
    cascade: dict[str, dict[str, float]] = {}
    for threshold in THRESHOLDS:
        unsure = said["logreg"].max(axis=1) < threshold
        answer = np.where(unsure[:, None], said["svc"], said["logreg"])
        cascade[str(threshold)] = {"go_on": round(float(unsure.mean()), 4), "accuracy": accuracy(answer)}
    record(
        "digits",
        {
            "rows": len(truth),
            "standard_error": round(float(np.sqrt(0.95 * 0.05 / len(truth))), 4),
            "accuracy": {name: accuracy(found) for name, found in said.items()},
            "together": together,
            "cascade_logreg_svc": cascade,
        },
    )


if __name__ == "__main__":
    main()
