"""`mesh cache stats | clear | warm`: the caches of a running mesh.

mesh cache stats ADDRESS                              hits, what they spared, and what the caches hold
mesh cache clear ADDRESS --node NAME                  forget what a node has put; everything without --node
mesh cache warm ADDRESS --node NAME -i input=@file    run a node ahead, for its answers to be there
mesh cache warm FILE --node NAME -i input=@file       the same before there is a mesh, into a cache that outlives it
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mesh.cli.connect import asking
from mesh.cli.counted import json_of_caches
from mesh.cli.inputs import INPUT_HELP, read_inputs
from mesh.cli.stats import ask, cache_tables
from mesh.cli.terminal import duration, run_until_interrupted, saying, show
from mesh.context import Context
from mesh.errors import NotFound, SetupError
from mesh.keeping import CacheAnswer, CacheCall
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.topology import compile_file
from mesh.topology.graph import MESH
from mesh.transports import DEFAULT_ENGINE, ENGINES, GrpcTransport, InprocTransport, Limits, Link
from mesh.transports.contract import CACHE, CACHES, Description

__all__ = ["add"]

ROWS_A_CALL = 64
"""Rows that are run ahead in one call."""
TIMEOUT_S = 30.0


def add(commands: Any) -> None:
    """Add the command, which has commands of its own."""
    made = commands.add_parser(
        "cache",
        help="look at the caches of a running mesh, empty or fill them",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    stats = verbs.add_parser("stats", help="hits, what they spared, and what the caches hold")
    stats.add_argument("--json", action="store_true", help="print JSON")
    stats.set_defaults(run=_stats)
    clear = verbs.add_parser("clear", help="forget what is in caches")
    clear.add_argument("--cache", default="", metavar="NAME", help="only in this cache (default: all of the topology)")
    clear.add_argument("--node", default="", metavar="NAME", help="only what this node has put (default: everything)")
    clear.add_argument("--version", default="", help="of that node, an older version (default: the one that is served)")
    clear.set_defaults(run=_clear)
    warm = verbs.add_parser("warm", help="run a node ahead, for its answers to be there")
    warm.add_argument("--node", required=True, metavar="NAME", help="a node with a cache layer")
    warm.add_argument("-i", "--input", action="append", default=[], metavar="NAME=VALUE", help=INPUT_HELP)
    warm.add_argument("--timeout", type=duration, default=TIMEOUT_S, help="most time for each 64 rows (default: 30s)")
    warm.set_defaults(run=_warm)
    for one in (stats, clear):
        one.add_argument("address", metavar="ADDRESS", help="grpc://host:port or unix:/path of the gateway")
    warm.add_argument("address", metavar="ADDRESS|FILE", help="of a running mesh, or a topology file")
    for one in (stats, clear, warm):
        one.add_argument("--engine", choices=sorted(ENGINES), default=DEFAULT_ENGINE, help="what speaks gRPC here")


def _stats(arguments: argparse.Namespace) -> int:
    told = run_until_interrupted(ask(arguments.address, arguments.engine))
    if arguments.json:
        print(json.dumps(json_of_caches(told)))
    elif told.cached or told.caches:
        show(*cache_tables(told))
    else:
        raise NotFound(f"{arguments.address} has no caches")
    return 0


def _clear(arguments: argparse.Namespace) -> int:
    if arguments.version and not arguments.node:
        raise SetupError("--version is one of a node: say which with --node")
    call = CacheCall(verb="clear", cache=arguments.cache, node=arguments.node, version=arguments.version)
    answer = run_until_interrupted(_control(arguments, call))
    print(f"{answer.count:,} {'entry' if answer.count == 1 else 'entries'} forgotten")
    return 0


async def _control(arguments: argparse.Namespace, call: CacheCall) -> CacheAnswer:
    link = await GrpcTransport(arguments.engine).dial(arguments.address, Limits())
    try:
        with asking(arguments.address):
            return await _asked(link, call, TIMEOUT_S)
    finally:
        await link.close()


async def _asked(link: Link, call: CacheCall, timeout_s: float) -> CacheAnswer:
    handler: Any = link.handler(CACHE, CACHES)
    return await handler(call, Context().within(timeout_s))


def _warm(arguments: argparse.Namespace) -> int:
    rows = run_until_interrupted(_warmed(arguments))
    print(f"{rows:,} {'row' if rows == 1 else 'rows'} of {arguments.node} there")
    return 0


async def _warmed(arguments: argparse.Namespace) -> int:
    async with _running(arguments) as (link, told):
        node = next((one for one in told.nodes if one.name == arguments.node), None)
        if node is None:
            known = ", ".join(one.name for one in told.nodes)
            raise NotFound(f"no node is called {arguments.node!r} there; there is: {known}")
        inputs = read_inputs(arguments.input, node.inputs)
        done = 0
        with saying(f"waiting for node {node.name}"):
            for start in range(0, inputs.rows, ROWS_A_CALL):
                part = inputs.take(start, min(start + ROWS_A_CALL, inputs.rows))
                call = CacheCall(verb="prefetch", node=node.name, inputs=part)
                done += (await _asked(link, call, arguments.timeout)).count
        return done


@asynccontextmanager
async def _running(arguments: argparse.Namespace) -> AsyncGenerator[tuple[Link, Description]]:
    """A mesh that runs elsewhere, or one of a file for as long as it takes."""
    where: str = arguments.address
    if where.startswith(("grpc://", "unix:/")):
        link = await GrpcTransport(arguments.engine).dial(where, Limits())
        try:
            with asking(where):
                told = await link.describe()
            yield link, told
        finally:
            await link.close()
        return
    plan = compile_file(Path(where), LAYERS).plan("fused")
    node = next((one for one in plan.graph.nodes if one.name == arguments.node), None)
    if node is not None and node.cache:
        outliving = [one for one in plan.graph.cache(node.cache).where if not one.startswith(("memory:", MESH))]
        if not outliving:
            text = f"cache {node.cache!r} would be gone with this command, which has no mesh to leave it in"
            raise SetupError(f"{text}: warm a running mesh by its address, or keep things in Redis or Valkey")
    transport = InprocTransport()
    async with LocalMesh(plan, transport=transport) as mesh:
        yield await transport.dial(mesh.gateway_address, Limits()), mesh.description
