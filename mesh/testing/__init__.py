"""The public test kit: contract checkers for whatever extends Mesh, a manual clock, and doubles."""

from mesh.testing.clock import ManualClock

__all__ = ["ManualClock"]
