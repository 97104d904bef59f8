"""`mesh call --stream`: what a graph gives, as it comes; a line for each event, or a JSON object."""

from __future__ import annotations

import json
import time
from contextlib import aclosing
from typing import Any

from mesh.cli.answers import json_of_branch, outline
from mesh.cli.connect import Served
from mesh.cli.reports import json_of_error, json_of_report, missing_branches, report_tables
from mesh.cli.terminal import printable, saying, show
from mesh.context import Context
from mesh.errors import RequestError
from mesh.tensors import Tensors

__all__ = ["show_stream"]


async def show_stream(served: Served, request: Tensors, context: Context, *, as_json: bool) -> int:
    """Ask, and show what comes until nothing follows.

    Raises:
        RequestError: The request failed: the call as a whole, or the last event was an error.
    """
    from rich.text import Text

    started = time.perf_counter()
    width = max((len(node.name) for node in served.told.nodes), default=0)
    error: RequestError | None = None

    def tell(node: str, what: dict[str, Any], text: str) -> None:
        at_ms = (time.perf_counter() - started) * 1e3
        named = {"node": node} if node else {}
        line = json.dumps({"at_ms": at_ms, **named, **what}) if as_json else f"{at_ms:10.2f} ms  {text}"
        print(line, flush=True)

    async with aclosing(served.link.stream(served.told.graph, request, context)) as events:
        while True:
            with saying("waiting for what comes next"):
                event = await anext(events, None)
            if event is None:
                break
            node, result = event
            name = printable(node).ljust(width)
            if isinstance(result, RequestError):
                error = result
                tell(node, {"error": json_of_error(result)}, f"{name}  {printable(f'{result.code}: {result.told}')}")
            else:
                error = None
                tell(node, json_of_branch(result), f"{name}  {outline(result)}")
    if error is not None:
        # Nothing follows an error that no output could do without.
        raise error
    tell("", {"finished": True, "request_id": context.request_id, **json_of_report(context)}, "finished")
    if not as_json and (parts := [*map(Text, missing_branches(context.joins or ())), *report_tables(context)]):
        show(*parts)
    return 0
