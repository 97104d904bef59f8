"""`make demo`: two meshes on real models, asked real questions.

First the file types of this repository and of the Python installation, by four workers in processes of their own; then
sentences, by one process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mesh.context import Context
from mesh.tensors import Tensors
from mesh.transports import GrpcTransport, Limits
from mesh.transports.contract import GRAPH
from mesh.transports.grpc import GrpcLink

ROOT = Path(__file__).resolve().parent.parent
ANSWERS_AT = "answers at "
START_TIMEOUT_S = 60.0
SENTENCES = (
    "An utterly charming film with a wonderful cast.",
    "A dull, lifeless mess that wastes two hours of your life.",
    "The acting is first rate, but the story goes nowhere.",
    "I would watch it again tomorrow.",
)
NODES = ("features", "magika", "label")
WIDEST_NAME = 32
console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console = Console(highlight=False, soft_wrap=True, width=140)


@asynccontextmanager
async def mesh_up(topology: str, placement: str) -> AsyncGenerator[GrpcLink]:
    """Launch a topology as a user would, and leave it as a user would, with SIGTERM."""
    mesh = Path(sysconfig.get_path("scripts")) / "mesh"
    command = [str(mesh), "up", topology, "--placement", placement, "--listen", "grpc://127.0.0.1:0"]
    console.print(f"\n[bold]$ mesh up {topology} --placement {placement}[/]")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=subprocess.PIPE)
    started = time.perf_counter()
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            address = await _address(process)
        console.print(f"[dim]ready after {time.perf_counter() - started:.1f} s at {address}[/]\n")
        link = await GrpcTransport().dial(address, Limits())
        try:
            yield link
        finally:
            await link.close()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
        console.print(f"[dim]{rest.decode().splitlines()[-1] if rest else ''}[/]")


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for raw in process.stderr:
        line = raw.decode().rstrip()
        if "| INFO" not in line:
            console.print(f"[dim]{line}[/]")
        if ANSWERS_AT in line:
            return line.partition(ANSWERS_AT)[2]
    sys.exit("the mesh did not start")


def sample_files() -> list[Path]:
    """Real files of several kinds: some of this repository, some of the Python installation."""
    own = ["README.md", "Makefile", "mesh/runtime/executor.py", "topologies/serial.yaml", "protos/mesh/v1/tensor.proto"]
    own += ["models/MODELS.json", "models/digits_mlp.onnx", "models/digits_sample.npz"]
    found = [ROOT / name for name in own]
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    for pattern in ("*.so", "*.pyc", "*.html", "*.css", "*.js", "*.exe", "*.c", "*.h", "*.pem", "*.txt"):
        match = next(
            (path for root in installed for path in sorted(root.rglob(pattern)) if path.stat().st_size > 200), None
        )
        if match:
            found.append(match)
    return found


async def file_types() -> None:
    """Ask for each file by itself, and say what it cost and who did what."""
    async with mesh_up("topologies/prep_pred_microservice.yaml", "microservice") as link:
        ask = link.handler(GRAPH, "prep-pred-microservice")
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("file", "bytes", "type", "score", "total ms"):
            table.add_column(name, justify="left" if name in ("file", "type") else "right", no_wrap=True)
        for name in NODES:
            table.add_column(f"{name} ms", justify="right", style="dim", no_wrap=True)
        table.add_column("by the processes", style="dim", no_wrap=True)
        for path in sample_files():
            data = path.read_bytes()
            context = Context(timings=[]).within(10.0)
            started = time.perf_counter()
            answer = await ask(Tensors({"file": [data]}), context)
            elapsed_ms = (time.perf_counter() - started) * 1e3
            timings = {one.node: one for one in context.timings or ()}
            processes = dict.fromkeys(f"{timings[node].worker} {timings[node].pid}" for node in NODES)
            label, score = answer["label"][0].decode(), float(answer["score"][0])
            shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path("…", *path.parts[-2:])
            spent = (f"{timings[node].compute_s * 1e3:.2f}" for node in NODES)
            row = (f"{len(data):,}", label, f"{score:.3f}", f"{elapsed_ms:.1f}", *spent, ", ".join(processes))
            table.add_row(_shortened(str(shown)), *row)
        console.print(table)


def _shortened(name: str) -> str:
    return name if len(name) <= WIDEST_NAME else f"{name[: WIDEST_NAME - 1]}…"


async def sentiments() -> None:
    """Ask for all sentences at once."""
    async with mesh_up("topologies/web_single.yaml", "fused") as link:
        started = time.perf_counter()
        request = Tensors({"text": [[sentence] for sentence in SENTENCES]})
        answer = await link.handler(GRAPH, "web-single")(request, Context().within(10.0))
        elapsed_ms = (time.perf_counter() - started) * 1e3
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("sentence")
        table.add_column("sentiment")
        table.add_column("positive", justify="right")
        for sentence, label, chances in zip(SENTENCES, answer["label"], answer["probabilities"], strict=True):
            table.add_row(sentence, "positive" if label else "negative", f"{chances[1]:.3f}")
        console.print(table)
        console.print(f"[dim]{len(SENTENCES)} sentences in one call: {elapsed_ms:.1f} ms[/]")


def main() -> None:
    """Both, then how to go on."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    asyncio.run(file_types())
    asyncio.run(sentiments())
    console.print(
        "\n[bold]To keep one running, and to ask it:[/]\n"
        "  .venv/bin/mesh up topologies/prep_pred_microservice.yaml --placement microservice\n"
        "  .venv/bin/mesh call grpc://127.0.0.1:8001 -i file=@README.md -i file=@models/digits_mlp.onnx --timings\n"
        "  .venv/bin/mesh load grpc://127.0.0.1:8001 -i file=@README.md -c 4 -d 5s"
    )


if __name__ == "__main__":
    main()
