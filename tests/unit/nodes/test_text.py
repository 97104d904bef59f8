from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import Context, InvalidInput, Tensors
from nodes.text import Lowercase, as_bytes, as_text


async def lower(text: object) -> Tensors:
    return await Lowercase().preprocess(Tensors({"text": np.array(text, dtype=object)}), Context())


async def test_letters_of_every_script_become_small() -> None:
    answer = await lower([[b"A DULL Film"], ["ÜNÏ ΑΒΓ".encode()]])
    assert [item.decode() for item in answer["text"].ravel()] == ["a dull film", "ünï αβγ"]
    assert answer["text"].shape == (2, 1)


async def test_much_text_gives_the_same_as_little() -> None:
    long = b"Film " * 50_000
    assert (await lower([long, b"Film "]))["text"].tolist() == [long.lower(), b"film "]


@pytest.mark.parametrize("before", [b"fine", b"fine" * 20_000])
async def test_bytes_that_are_not_utf8_name_the_row(before: bytes) -> None:
    with pytest.raises(InvalidInput, match="row 1: tensor 'text': byte 2 is not UTF-8") as caught:
        await lower([[before, before], [b"fine", b"no\xff"]])
    assert (caught.value.tensor, caught.value.row) == ("text", 1)


@given(st.lists(st.text()))
def test_text_survives_bytes(texts: list[str]) -> None:
    assert as_text("text", as_bytes(texts, (len(texts),))) == texts
