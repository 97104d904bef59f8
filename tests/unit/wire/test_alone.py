"""`mesh.wire` could be a package of its own: it runs with grpcio, protobuf and hpack, and nothing else of Mesh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# typing_extensions is grpcio's own requirement.
ALONE = """
import asyncio, sys, types

sys.path.insert(0, sys.argv[1])
ALLOWED = sys.stdlib_module_names | {"grpc", "google", "hpack", "typing_extensions"}

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ALLOWED or name.startswith("mesh.wire"):
            return None
        raise ModuleNotFoundError(f"{name} is not there", name=name)

sys.meta_path.insert(0, Nothing())
# The parent's own imports are not the wire's.
parent = sys.modules["mesh"] = types.ModuleType("mesh")
parent.__path__ = [f"{sys.argv[1]}/mesh"]

import pkgutil
import grpc
import mesh.wire

for found in pkgutil.walk_packages(mesh.wire.__path__, "mesh.wire."):
    __import__(found.name)

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.echo)

    async def echo(self, request, context):
        return request

async def main():
    server = mesh.wire.server(handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with mesh.wire.insecure_channel(f"127.0.0.1:{port}") as channel:
        print((await channel.unary_unary("/a/b")(b"it runs", timeout=20)).decode())
    await server.stop(None)

asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("mesh.") and not name.startswith("mesh.wire")))
"""


def test_it_runs_with_nothing_else_there() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.splitlines(), done.returncode) == (["it runs", "[]"], 0), done.stderr
