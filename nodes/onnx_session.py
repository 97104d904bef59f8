"""What every node that runs an ONNX model does with onnxruntime: open it, run it in threads, stop it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime as ort

from mesh import SetupError, Unavailable
from nodes.onnx_file import external_files
from nodes.threads import Threads

__all__ = ["Runs", "open_session", "reason_of", "run_options"]

T = TypeVar("T")

_SILENT = 4
"""onnxruntime's log level that keeps errors off stderr: it raises them as well."""


def open_session(model: Path, providers: Sequence[str], threads: int) -> Any:
    """An `onnxruntime.InferenceSession` that uses `threads` threads inside a run, none of which spins.

    Raises:
        SetupError: The model is missing, broken, or names data outside its folder; or a provider is not there.
    """
    external_files(model)
    available = ort.get_available_providers()
    for provider in providers:
        if provider not in available:
            raise SetupError(f"{provider} is no provider of this onnxruntime; it has {', '.join(available)}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    # Threads that spin while they wait would take the cores of the workers beside this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = ort.InferenceSession(str(model), options, providers=list(providers), enable_fallback=0)
    except Exception as error:
        raise SetupError(f"{model}: onnxruntime cannot load it: {reason_of(error)}") from error
    if missing := [provider for provider in providers if provider not in session.get_providers()]:
        raise SetupError(f"{model}: {missing[0]} could not be set up on this machine")
    return session


def run_options() -> Any:
    """Options of one run; it stops at the next operator once their `terminate` is set."""
    options: Any = ort.RunOptions()
    options.log_severity_level = _SILENT
    return options


def reason_of(error: Exception) -> str:
    """The text of onnxruntime without its code and the path that ours begins with."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?", "", str(error)).strip()


class Runs:
    """Runs of models in a node's own threads, at most `workers` at once; the others wait in order.

    Work is given the options to run its model with, as often as it likes: when its caller is cancelled or the node is
    unloaded, the run in progress and every later one with these options end.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._threads = Threads(workers, name)
        self._running: set[Any] = set()

    async def run(self, work: Callable[[Any], T]) -> T:
        """Run `work` in a thread.

        Raises:
            Unavailable: The node was unloaded meanwhile.
        """
        options = run_options()
        self._running.add(options)
        try:
            return await self._threads.run(lambda: work(options))
        except asyncio.CancelledError:
            options.terminate = True  # the caller is gone: the run stops at the next operator
            raise
        except Exception:
            if options.terminate:
                raise Unavailable("the node is being unloaded") from None
            raise
        finally:
            self._running.discard(options)

    async def close(self) -> None:
        """End what runs, drop what waits, and return when the threads have gone."""
        for options in self._running:
            options.terminate = True
        await self._threads.close()
