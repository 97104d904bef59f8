"""Files that the tests of nodes use."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mesh import Array, Tensors

MODELS = Path(__file__).parents[3] / "models"
TEXT_OF_PAGE = (MODELS / "page.txt").read_text().splitlines()
"""What is printed on the scanned page of scikit-image."""


def fetched(name: str) -> Path:
    """A file that is not part of the repository."""
    path = MODELS / "fetched" / name
    if not path.is_file():
        pytest.fail(f"{path.name} is missing; run: make fetch")
    return path


def page(quarters: int = 0) -> Image.Image:
    """The scanned page, turned clockwise by so many quarters."""
    with Image.open(fetched("page.png")) as image:
        image.load()
    return image if quarters % 4 == 0 else image.rotate(-90 * quarters, expand=True)


def picture_file(image: Image.Image | Array, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def pixels_of(data: bytes) -> Array:
    """The pixels of a file, RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def files(name: str, *data: bytes) -> Tensors:
    """One file a row."""
    return Tensors({name: np.array([*data, None], object)[:-1]})
