"""The page on clients does what it says: its Python is run in order, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Generator
from typing import Any

import pytest

from tests.harness.meshes import ROOT
from tests.harness.processes import StartMesh

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", PAGE, re.DOTALL)
STARTED = re.findall(r"^    mesh up (\S+) ", PAGE, re.MULTILINE)


@pytest.fixture
def names(start_mesh: StartMesh) -> Generator[dict[str, Any]]:
    """Where the mesh of the page really answers, and in time whatever its blocks define."""
    found: dict[str, Any] = {"address": start_mesh(*STARTED).ready().removeprefix("grpc://")}
    yield found
    if "channel" in found:
        found["channel"].close()


def test_every_block_of_the_page_prints_what_the_page_says(names: dict[str, Any]) -> None:
    assert len(BLOCKS) >= 10
    for number, (code, expected) in enumerate(BLOCKS, start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code.replace("127.0.0.1:8001", names["address"]), f"block {number}", "exec"), names)
        assert printed.getvalue() == expected, f"block {number}"
