"""The type checker is a part of the interface: what it must accept of an author, and what it must refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKER = Path(sysconfig.get_path("scripts")) / "basedpyright"
REFUSED = re.compile(r"# refused: (\w+)$")


@cache
def complaints() -> set[tuple[str, int, str]]:
    """File, line and rule of everything that the checker says about this folder."""
    ended = subprocess.run(
        [CHECKER, "--project", HERE / "pyrightconfig.json", "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    told = json.loads(ended.stdout)
    assert told["summary"]["filesAnalyzed"] >= 2, ended.stdout
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1, one.get("rule", "syntax"))
        for one in told["generalDiagnostics"]
    }


@pytest.mark.parametrize("name", ["accepted.py", "rejected.py"])
def test_the_checker_refuses_what_it_has_to_and_nothing_else(name: str) -> None:
    lines = (HERE / name).read_text().splitlines()
    expected = {
        (name, number + (line.lstrip().startswith("#")), matched[1])  # a comment alone speaks of the next line
        for number, line in enumerate(lines, start=1)
        if (matched := REFUSED.search(line)) is not None
    }
    assert {complaint for complaint in complaints() if complaint[0] == name} == expected
    assert bool(expected) == (name == "rejected.py")
