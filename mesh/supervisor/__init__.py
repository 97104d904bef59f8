"""Starts processes in order, keeps them alive, and ends them in the reverse order. It knows no topology and no gRPC."""

from mesh.supervisor.child import Process
from mesh.supervisor.driver import Supervisor, print_announcement, print_line, supervise
from mesh.supervisor.lifeline import hold_lifeline
from mesh.supervisor.machine import EXIT_FAILED, EXIT_SETUP
from mesh.supervisor.messages import Announce, State
from mesh.supervisor.policy import Policy

__all__ = [
    "EXIT_FAILED",
    "EXIT_SETUP",
    "Announce",
    "Policy",
    "Process",
    "State",
    "Supervisor",
    "hold_lifeline",
    "print_announcement",
    "print_line",
    "supervise",
]
