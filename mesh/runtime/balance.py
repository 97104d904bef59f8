"""Several replicas of a handler to one: the less busy of two picked at random.

Two random choices keep the fullest replica within a hair of the average, where plain random picking does not (M.
Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), and unlike "the least busy of all" it does
not send every caller to the same one at once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from mesh.context import Context
from mesh.errors import Unavailable
from mesh.handler import Handler
from mesh.tensors import Tensors

__all__ = ["balanced"]

Request = TypeVar("Request")


def balanced(replicas: Sequence[Handler[Request]], *, seed: int | None = None) -> Handler[Request]:
    """One handler over several. A call that finds a replica unreachable, or loses it, goes to another; never twice to
    the same one.

    Args:
        replicas: At least one.
        seed: Makes the choices repeatable.

    Raises, when called: whatever the chosen replica raises; Unavailable when none can be reached.
    """
    if len(replicas) == 1:
        return replicas[0]
    chance = random.Random(seed)
    busy = [0] * len(replicas)

    async def call(request: Request, context: Context, /) -> Tensors:
        left = list(range(len(replicas)))
        while True:
            chosen = _pick(left, busy, chance)
            busy[chosen] += 1
            try:
                return await replicas[chosen](request, context)
            except Unavailable:
                # Nothing was answered. Only the others are asked again, each at most once.
                left.remove(chosen)
                if not left:
                    raise
                context.check_deadline()
            finally:
                busy[chosen] -= 1

    return call


def _pick(among: Sequence[int], busy: Sequence[int], chance: random.Random) -> int:
    """The less busy of two different ones at random; the only one where there is no other."""
    if len(among) == 1:
        return among[0]
    first = int(chance.random() * len(among))
    second = (first + 1 + int(chance.random() * (len(among) - 1))) % len(among)
    one, other = among[first], among[second]
    return one if busy[one] <= busy[other] else other
