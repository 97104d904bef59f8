"""Meshes inside the test's own process, over every kind of link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import RequestError
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import Compiled, compile_file
from mesh.transports import InprocTransport, Transport
from tests.harness.engines import PAIRS

__all__ = ["LINKS", "ROOT", "TOPOLOGIES", "Kind", "Result", "compiled", "local_mesh"]

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = ROOT / "topologies"

Result = Tensors | RequestError
"""How a request ends, as a value."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to link workers."""

    transport: Callable[[], Transport]
    address: str
    """With room for a folder, a worker and a replica."""


LINKS: Mapping[str, Kind] = {
    "inproc": Kind(InprocTransport, "inproc://{1}-{2}"),
    "inproc-strict": Kind(lambda: InprocTransport(strict=True), "inproc://{1}-{2}"),
    **{pair: Kind(transport, "unix:{0}/{1}-{2}") for pair, transport in PAIRS.items()},
}


def compiled(file: Path) -> Compiled:
    """A topology file, checked."""
    return compile_file(file, LAYERS)


def local_mesh(file: Path, placement: str, link: str, folder: Path) -> LocalMesh:
    """A mesh whose workers are linked in one way; sockets go into `folder`."""
    kind = LINKS[link]
    address = kind.address.format(folder, "{0}", "{1}")
    return LocalMesh(compiled(file).plan(placement), transport=kind.transport(), address=address)
