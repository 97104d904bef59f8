"""Plans made to run: the executor, the building of nodes and layers, and the worker."""

from mesh.runtime.executor import Executor, Step
from mesh.runtime.mesh import LocalMesh
from mesh.runtime.worker import Worker

__all__ = ["Executor", "LocalMesh", "Step", "Worker"]
