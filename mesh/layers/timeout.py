"""`timeout: {after: 80ms}`: the node's own share of a request's time."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mesh.context import Context
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.units import Duration

__all__ = ["Timeout"]


class Timeout(BaseModel):
    """Give the node at most `after`, and never more than the request has left.

    Raises, when called through: DeadlineExceeded when the time ran out; the work was cancelled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    after_s: Annotated[Duration, Field(gt=0, le=86400, alias="after", description="How long the node may take.")]

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        async def within(request: Tensors, context: Context, /) -> Tensors:
            context = context.within(self.after_s)
            return await context.run(handler(request, context))

        return within
