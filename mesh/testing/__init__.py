"""The public test kit: contract checkers for whatever extends Mesh, a manual clock, and doubles."""

from mesh.testing.clock import ManualClock, settle
from mesh.testing.contracts_cache import CACHE_RULES, CacheBench, check_cache
from mesh.testing.contracts_layer import check_layer
from mesh.testing.contracts_node import check_node
from mesh.testing.contracts_transport import TRANSPORT_RULES, TransportBench, check_transport
from mesh.testing.doubles import ScriptedCall, ScriptedHandler

__all__ = [
    "CACHE_RULES",
    "TRANSPORT_RULES",
    "CacheBench",
    "ManualClock",
    "ScriptedCall",
    "ScriptedHandler",
    "TransportBench",
    "check_cache",
    "check_layer",
    "check_node",
    "check_transport",
    "settle",
]
