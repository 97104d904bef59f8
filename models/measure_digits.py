"""How good the digit models are, alone and together: `python models/measure_digits.py`.

On the 899 pictures that no model has learnt from. Writes what it finds to MEASURED.json under `digits`. Needs only
`make setup`; takes a second.
"""

from __future__ import annotations

import asyncio
from itertools import combinations

import numpy as np
from manifest import FOLDER, record

from mesh import Aggregate, Branches, Context, Tensors
from nodes.aggregate import MajorityVote, SoftVote
from nodes.onnx import OnnxPredict
from nodes.tabular import Scale

HALVES = ("left", "right", "top", "bottom")
THRESHOLDS = (0.8, 0.9)
CONTEXT = Context()


async def answers(name: str, image: np.ndarray) -> Tensors:
    scaled = await Scale(divide_by=16).preprocess(Tensors({"x": image}), CONTEXT)
    async with OnnxPredict(model=FOLDER / f"digits_{name}.onnx") as model:
        return await model.predict(Tensors({"X": scaled["x"]}), CONTEXT)


async def measure(image: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    def accuracy(label: np.ndarray) -> float:
        return round(float((label == truth).mean()), 4)

    async def together(join: Aggregate, names: tuple[str, ...]) -> float:
        answer = await join.aggregate(Branches({name: said[name] for name in names}), CONTEXT)
        return accuracy(answer["label"])

    said = {name: await answers(name, image) for name in (*HALVES, "logreg", "svc")}
    joins = {"arithmetic": SoftVote(), "geometric": SoftVote(mean="geometric"), "votes": MajorityVote()}
    cascade: dict[str, dict[str, float]] = {}
    for threshold in THRESHOLDS:
        unsure = said["logreg"]["probabilities"].max(axis=1) < threshold
        label = np.where(unsure, said["svc"]["label"], said["logreg"]["label"])
        cascade[str(threshold)] = {"go_on": round(float(unsure.mean()), 4), "accuracy": accuracy(label)}
    return {
        "rows": len(truth),
        "standard_error": round(float(np.sqrt(0.95 * 0.05 / len(truth))), 4),
        "accuracy": {name: accuracy(answer["label"]) for name, answer in said.items()},
        "together": {
            "+".join(names): {how: await together(join, names) for how, join in joins.items()}
            for count in (2, 3, 4)
            for names in combinations(HALVES, count)
        },
        "cascade_logreg_svc": cascade,
    }


if __name__ == "__main__":
    sample = np.load(FOLDER / "digits_sample.npz")
    record("digits", asyncio.run(measure(sample["image"], sample["label"])))
