"""Files that the tests of nodes use."""

from __future__ import annotations

from pathlib import Path

import pytest

MODELS = Path(__file__).parents[3] / "models"


def magika(name: str) -> Path:
    """A file of Magika, which is not part of the repository."""
    path = MODELS / "fetched" / name
    if not path.is_file():
        pytest.fail(f"{path.name} is missing; run: python models/fetch.py magika")
    return path
