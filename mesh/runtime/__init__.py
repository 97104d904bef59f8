"""Plans made to run: the executor, the building of nodes and layers, and the worker."""

from mesh.runtime.executor import Executor
from mesh.runtime.mesh import LocalMesh
from mesh.runtime.steps import JoinStep, NodeStep, PieceStep, Step
from mesh.runtime.worker import Worker

__all__ = ["Executor", "JoinStep", "LocalMesh", "NodeStep", "PieceStep", "Step", "Worker"]
