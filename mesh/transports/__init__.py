"""Ways to listen and to dial, chosen by an address's scheme.

| address | what it is |
|---|---|
| `inproc://name` | another part of this process: arrays by reference, or through the codec in strict mode |
| `unix:/path/to.sock` | gRPC over a unix socket, for processes of one host |
| `grpc://host:port` | gRPC over TCP; port 0 lets the operating system choose |

The executor cannot tell a link from a node: both are handlers.
"""

from mesh.transports.contract import Endpoint, GraphHandler, Limits, Link, Listener, Service, Transport
from mesh.transports.engine import DEFAULT_ENGINE, ENGINES
from mesh.transports.grpc import GrpcTransport
from mesh.transports.inproc import InprocTransport

__all__ = [
    "DEFAULT_ENGINE",
    "ENGINES",
    "Endpoint",
    "GraphHandler",
    "GrpcTransport",
    "InprocTransport",
    "Limits",
    "Link",
    "Listener",
    "Service",
    "Transport",
]
