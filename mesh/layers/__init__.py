"""What can be put around a node. A layer is a frozen settings object that can be called: handler to handler.

Every file here has the same shape: the settings, then the handler they make. No layer imports another.
"""

from collections.abc import Mapping

from mesh.layers.batch import Batch
from mesh.layers.queue import Queue
from mesh.layers.timeout import Timeout

__all__ = ["LAYERS", "Batch", "Queue", "Timeout"]

LAYERS: Mapping[str, type[Batch | Queue | Timeout]] = {"batch": Batch, "queue": Queue, "timeout": Timeout}
"""Name in a topology file -> layer."""
