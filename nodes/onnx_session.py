"""What every node that runs an ONNX model does with onnxruntime: open it, run it in threads, stop it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime as ort

from mesh import Array, SetupError, Unavailable
from nodes.onnx_file import digest_of, external_files
from nodes.threads import Threads, check_threads

__all__ = ["OwnModel", "Run", "Runs", "open_session", "reason_of", "run_options"]

T = TypeVar("T")
Run = Callable[[dict[str, Array]], Array]
"""A model as a function: what it takes by name, to its first output."""

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


class OwnModel:
    """A model that is part of a node: what goes in and comes out never leaves the thread that it runs in.

    Args:
        model: The model file.
        inputs: The inputs that it has to have, in any order.
        providers: onnxruntime execution providers, best first. One that cannot be set up is an error, never replaced.
        threads: Threads that onnxruntime uses inside one run.
        workers: Calls worked on at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range.
    """

    def __init__(
        self, model: Path, inputs: Sequence[str], *, providers: Sequence[str], threads: int, workers: int
    ) -> None:
        self._model = model
        self._inputs = sorted(inputs)
        self._providers = providers
        self._threads = check_threads(threads, "threads")
        self._workers = check_threads(workers, "workers")
        self._session: Any = None
        self._runs: Runs | None = None

    def digest(self) -> str:
        """Of the file and what it refers to, as `nodes.onnx_file.digest_of`."""
        return digest_of(self._model)

    @property
    def session(self) -> Any:
        """The `onnxruntime.InferenceSession`; the first look opens it.

        Raises:
            SetupError: The model cannot be opened, or takes other inputs.
        """
        if self._session is None:
            session = open_session(self._model, self._providers, self._threads)
            found = sorted(tensor.name for tensor in session.get_inputs())
            if found != self._inputs:
                raise SetupError(f"{self._model}: takes {', '.join(found)}, and not {', '.join(self._inputs)}")
            self._session = session
        return self._session

    async def open(self, check: Callable[[Run], object]) -> None:
        """Open it, in a thread, and run it once for the sake of the first caller.

        Args:
            check: Asks it something; what that raises means that the file is another model.

        Raises:
            SetupError: The model cannot be opened, takes other inputs, or cannot answer the check.
        """
        self._runs = Runs(self._workers, f"onnx-{self._model.stem}")
        try:
            await self._runs.run(lambda options: self._check(check, options))
        except BaseException:
            await self.close()
            raise

    def _check(self, check: Callable[[Run], object], options: Any) -> None:
        session = self.session
        try:
            check(_runner(session, options))
        except SetupError:
            raise
        except Exception as error:
            raise SetupError(f"{self._model}: cannot answer as this node needs it: {reason_of(error)}") from error

    async def run(self, work: Callable[[Run], T]) -> T:
        """Do work that asks the model, in a thread.

        Raises:
            RuntimeError: It is not open.
            Unavailable: It was closed meanwhile.
        """
        if self._runs is None:
            raise RuntimeError("the node is not loaded: use `async with node:`")
        session = self._session
        return await self._runs.run(lambda options: work(_runner(session, options)))

    async def close(self) -> None:
        """End what runs, and let go of the model."""
        runs, self._runs = self._runs, None
        if runs is not None:
            await runs.close()
        self._session = None


def _runner(session: Any, options: Any) -> Run:
    return lambda feed: session.run(None, feed, options)[0]
