"""What the arguments of `Fetch` are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, ValidationInfo

__all__ = ["Bucket", "Root"]


def _beside_the_models(path: Path, info: ValidationInfo) -> Path:
    """Relative to the model root that the topology's compiler put into the validation context, as model files are."""
    root: Path | None = info.context.get("model_root") if info.context else None
    return path if root is None else root / path


Root = Annotated[Path, AfterValidator(_beside_the_models)]
"""A folder; in a topology file a relative one counts from the model root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where a bucket is. What is left out comes from the usual `AWS_...` variables, as credentials always do."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    region: str = ""
    endpoint: str = ""
    """URL of the service, for those that are not Amazon's; `http:` too. It is the operator's, and not held against
    `hosts` or `allow_private`."""
    unsigned: bool = False
    """Ask without credentials, for public buckets."""
