"""Aggregates: several branches to one answer, row by row; and `Gather`, which puts expanded rows together again.

| aggregate | a row of the answer | branches that a row needs |
|---|---|---|
| `FirstOf` | that of the first branch that has it | any, or none with a `default` |
| `Select` | that of the branch that a selector names | every, the one that is named, or none with a `default` |
| `Mean`, `WeightedMean` | the mean | any, or none with a `default` |
| `Max` | the largest, element by element | any, or none with a `default` |
| `MajorityVote` | the label that most gave, and how many did | any, or none with a `default` |
| `SoftVote` | the mean of probabilities, and its likeliest class | any, or none with a `default` |
| `RankFusion` | ranked lists fused by reciprocal rank | any |
| `Concat` | tensors one after another along axis 1 | every |
| `Stack` | tensors along a new axis 1 | every, or none with a `fill` |
| `Gather` | the rows that a node made of it, put together | none |
| a class derived from `RowAligned` | what its `combine` makes | as it says |

A branch that failed counts as absent. A row that cannot be answered is an error: that of the first branch that failed,
else `InvalidInput` naming the row.
"""

from nodes.aggregate.aligned import BranchRows, RowAligned
from nodes.aggregate.choosing import FirstOf, Select
from nodes.aggregate.gathering import Gather, How
from nodes.aggregate.numeric import Max, Mean, WeightedMean
from nodes.aggregate.ranking import RankFusion
from nodes.aggregate.voting import MajorityVote, SoftVote
from nodes.aggregate.widening import Concat, Stack

__all__ = [
    "BranchRows",
    "Concat",
    "FirstOf",
    "Gather",
    "How",
    "MajorityVote",
    "Max",
    "Mean",
    "RankFusion",
    "RowAligned",
    "Select",
    "SoftVote",
    "Stack",
    "WeightedMean",
]
