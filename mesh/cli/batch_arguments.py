"""What a batch does, as arguments."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mesh.context import Parameter
from mesh.errors import SetupError
from mesh.topology.graph_jobs import GraphBatch

__all__ = ["add_batch_arguments", "batch_of_arguments"]

_FORMATS = ("parquet", "csv", "jsonl", "npy", "files")


def add_batch_arguments(made: Any) -> None:
    """Add them to a command."""
    made.add_argument(
        "--input", type=Path, required=True, metavar="PATH", help="a Parquet, CSV, JSON lines or .npy file, or a folder"
    )
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder for the results")
    made.add_argument("--format", choices=_FORMATS, default="", help="of the input (default: as its name says)")
    made.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="COLUMN=TENSOR",
        help="what feeds an input of the graph: a column, several with commas between, or a pattern such as pixel_* "
        "(default: the column of the tensor's name); may be given again",
    )
    made.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN", help="write this column beside the outputs; again"
    )
    made.add_argument(
        "--outputs", action="append", default=[], metavar="NAME", help="write only this output of the graph; again"
    )
    made.add_argument(
        "--on-error",
        type=_policy,
        default=None,
        metavar="POLICY",
        help="keep-going, stop, or stop-after=N rows that failed (default: keep-going)",
    )
    made.add_argument("--shard-rows", type=_rows, default=0, metavar="N", help="rows that one worker takes on at once")
    made.add_argument("--request-rows", type=_rows, default=0, metavar="N", help="rows of a request to the graph")
    made.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="sent beside every request; again"
    )


def batch_of_arguments(arguments: argparse.Namespace) -> GraphBatch:
    """The batch that they say.

    Raises:
        SetupError: One of them says nothing.
    """
    return GraphBatch(
        input=str(arguments.input.absolute()),
        input_format=arguments.format,
        columns=_columns(arguments.map),
        output=str(arguments.output.absolute()),
        keep=tuple(arguments.keep),
        outputs=tuple(arguments.outputs),
        shard_rows=arguments.shard_rows,
        request_rows=arguments.request_rows,
        stop_after=arguments.on_error,
        parameters=dict(map(_parameter, arguments.parameter)),
    )


def _columns(given: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for text in given:
        column, equals, tensor = text.rpartition("=")
        if not equals or not column or not tensor:
            raise SetupError(f"--map {text}: write COLUMN=TENSOR")
        if tensor in columns:
            raise SetupError(f"--map {text}: tensor {tensor!r} is fed twice; several columns: A,B={tensor}")
        columns[tensor] = column
    return columns


def _parameter(text: str) -> tuple[str, Parameter]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SetupError(f"--parameter {text}: write NAME=VALUE")
    try:
        read: Any = json.loads(value)
    except ValueError:
        return name, value
    return name, read if isinstance(read, bool | int | float | str) else value


def _policy(text: str) -> int | None:
    if text == "keep-going":
        return None
    if text == "stop":
        return 0
    name, _, count = text.partition("=")
    if name == "stop-after" and count.isdigit():
        return int(count)
    raise argparse.ArgumentTypeError(f"{text!r} is none of keep-going, stop and stop-after=N")


def _rows(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)
