from __future__ import annotations

import argparse

import pytest
from rich.table import Table
from rich.text import Text

from mesh.cli.terminal import duration, printable, saying, show


def test_piped_output_is_plain_and_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name")
    table.add_column("long", style="red")
    table.add_row("a", Text("x" * 300))
    table.add_row("b", Text("[bold]y[/bold]"))
    show(table, Text("done", style="dim"))
    assert capsys.readouterr().out.splitlines() == ["name  long", f"a     {'x' * 300}", "b     [bold]y[/bold]", "done"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred\x7f", r"\x1b[31mred\x7f"),
        ("", ""),
    ],
)
def test_a_text_from_outside_is_one_line_without_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


async def test_nothing_is_said_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with saying("waiting"):
        pass
    assert capsys.readouterr().err == ""


def test_a_duration_is_seconds() -> None:
    assert duration("5ms") == 0.005
    with pytest.raises(argparse.ArgumentTypeError, match="write a number and a unit"):
        duration("5")
