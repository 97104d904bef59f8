"""The public test kit: contract checkers for whatever extends Mesh, a manual clock, and doubles."""

from mesh.testing.clock import ManualClock
from mesh.testing.contracts_node import check_node

__all__ = ["ManualClock", "check_node"]
