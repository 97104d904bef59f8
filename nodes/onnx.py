"""`OnnxPredict`: an ONNX model as a node."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from mesh import (
    DATATYPES,
    Array,
    Context,
    InvalidInput,
    ModelFile,
    NodeContractError,
    Predict,
    SetupError,
    Signature,
    Tensors,
    TensorSpec,
)
from nodes.onnx_file import digest_of
from nodes.onnx_session import Runs, open_session, reason_of, run_options
from nodes.onnx_signature import bind
from nodes.text import as_bytes, as_text
from nodes.threads import check_threads

__all__ = ["THREAD_HOP_S", "OnnxPredict"]

THREAD_HOP_S = 200e-6
"""What it costs to run something in a thread and come back, on a busy machine. A run known to be cheaper stays on the
event loop: it would be over before the thread had begun."""

_LEARN = 1 / 4
"""Weight of the newest measurement in the moving average."""
_BUCKETS = 64
_UNKNOWN = math.inf


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open model, and what each run of it needs."""

    run: Callable[[list[str], dict[str, Array], Any], list[Array]]
    signature: Signature
    inputs: tuple[tuple[str, str], ...]
    """Name in the mesh and in the model."""
    texts: frozenset[str]
    """Inputs that are BYTES."""
    outputs: tuple[str, ...]
    onnx_outputs: list[str]
    text_outputs: tuple[int, ...]


class OnnxPredict(Predict):
    """Run an ONNX model with onnxruntime.

    The signature is the model's own: axis 0 of every tensor has to be dynamic and is called `rows`; other symbolic
    dimensions keep their names. Strings are BYTES in UTF-8. Rows alone and rows together agree only to the last bits:
    linear algebra adds up in another order in a larger batch.

    A run cheaper than `THREAD_HOP_S` is made on the event loop, a dearer one in a thread of this node. Which it is, is
    learnt by size (elements and characters, by powers of two) as a moving average, first measured at load with one row
    and with two; a size never seen goes to a thread.

    Args:
        model: The model file. External data has to lie in its folder.
        outputs: Which outputs to give, in this order; None for all.
        providers: onnxruntime execution providers, best first. One that cannot be set up is an error, never replaced.
        threads: Threads that onnxruntime uses inside one run.
        workers: Runs in threads at once. Callers beyond that wait in order.

    Raises:
        SetupError: An argument is out of range. (The model itself is opened when `signature` is first read.)
    """

    def __init__(
        self,
        *,
        model: ModelFile,
        outputs: Sequence[str] | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        workers: int = 1,
    ) -> None:
        self._model = model
        self._wanted = outputs
        self._providers = list(providers)
        self._threads = check_threads(threads, "threads")
        self._workers = check_threads(workers, "workers")
        self._opened: _Opened | None = None
        self._runs: Runs | None = None
        self._options = run_options()
        self._cost_s = [_UNKNOWN] * _BUCKETS
        # In a thread, wall time counts the wait for a busy event loop to give the interpreter back. The thread's own
        # time does not; but it misses what other threads or a GPU do.
        alone = self._threads == 1 and self._providers == ["CPUExecutionProvider"]
        self._thread_clock = time.thread_time if alone else time.perf_counter

    @property
    def signature(self) -> Signature:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the model takes and gives. The first read opens the model.

        Raises:
            SetupError: The model is missing, broken, or names data outside its folder; or a provider is not there.
            NodeContractError: A tensor has no dynamic batch dimension, or a type that no datatype stands for.
        """
        return self._open().signature

    def digest(self) -> str:
        return digest_of(self._model)

    def _open(self) -> _Opened:
        if self._opened is None:
            session = open_session(self._model, self._providers, self._threads)
            signature, inputs, outputs = bind(self._model, session.get_inputs(), session.get_outputs(), self._wanted)
            # The public `run` looks at every input's name again and takes 3 microseconds for it; this is what it calls.
            inner = getattr(session, "_sess", session)
            self._opened = _Opened(
                run=inner.run,
                signature=signature,
                inputs=tuple(zip(inputs.specs, inputs.onnx_names, strict=True)),
                texts=frozenset(name for name, spec in inputs.specs.items() if spec.datatype == "BYTES"),
                outputs=tuple(outputs.specs),
                onnx_outputs=list(outputs.onnx_names),
                text_outputs=tuple(i for i, spec in enumerate(outputs.specs.values()) if spec.datatype == "BYTES"),
            )
        return self._opened

    async def __aenter__(self) -> Self:
        self._runs = Runs(self._workers, f"onnx-{self._model.stem}")
        try:
            await self._runs.run(lambda _: self._warm_up())
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        runs, self._runs, self._opened = self._runs, None, None
        if runs is not None:
            await runs.close()
        self._cost_s = [_UNKNOWN] * _BUCKETS

    def _warm_up(self) -> None:
        """Open the model and prove with zeros that it takes one row and two."""
        opened = self._open()
        # Zeros in a shape that the model states are something it has to take. Empty text, or a guess at a size that it
        # leaves open, are not: then it is the first requests that warm it up.
        certain = all(
            spec.datatype != "BYTES" and all(isinstance(size, int) for size in spec.shape[1:])
            for spec in opened.signature.inputs.values()
        )
        for rows in (1, 2, 1):  # the first run is slow and tells nothing of the cost; the last one measures one row
            try:
                feed, size = _feed(opened, _zeros(opened.signature.inputs, rows))
                found, took_s = _timed(opened, feed, self._options)
            except Exception as error:
                if certain:
                    raise SetupError(f"{self._model}: cannot answer a batch of {rows}: {reason_of(error)}") from error
                return
            _check_rows(self._model, opened, found, rows)
            self._cost_s[size.bit_length()] = took_s

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        opened, runs = self._opened, self._runs
        if opened is None or runs is None:
            raise RuntimeError("the node is not loaded: use `async with node:`")
        feed, size = _feed(opened, inputs)
        if size == 0 and inputs.rows == 0:
            return _no_rows(opened.signature, inputs)
        bucket = size.bit_length()
        try:
            if self._cost_s[bucket] < THREAD_HOP_S:
                found, took_s = _timed(opened, feed, self._options)
            else:
                found, took_s = await runs.run(lambda options: _timed(opened, feed, options, self._thread_clock))
        except InvalidArgument:
            # onnxruntime's own text may name files, and what it says of operators is nothing to a caller.
            raise InvalidInput(f"the model refuses this input: {inputs!r}") from None
        self._learn(bucket, took_s)
        for index in opened.text_outputs:
            texts = found[index]
            found[index] = as_bytes(texts.ravel().tolist(), texts.shape)
        for array in found:
            array.flags.writeable = False
        return Tensors.trusted(dict(zip(opened.outputs, found, strict=True)))

    def _learn(self, bucket: int, took_s: float) -> None:
        known = self._cost_s[bucket]
        # One run that the machine interrupted counts for no more than twice what is known, so that it does not send a
        # cheap model to the threads.
        self._cost_s[bucket] = took_s if known == _UNKNOWN else known + (min(took_s, 2 * known) - known) * _LEARN


def _feed(opened: _Opened, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """What onnxruntime takes, and its size: elements and, for text, characters."""
    feed: dict[str, Array] = {}
    size = 0
    for name, onnx_name in opened.inputs:
        feed[onnx_name] = array = inputs[name]
        size += array.size
        if name in opened.texts:
            texts = as_text(name, array)
            feed[onnx_name] = np.array(texts, dtype=object).reshape(array.shape)
            size += sum(map(len, texts))
    return feed, size


def _timed(
    opened: _Opened, feed: dict[str, Array], options: Any, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[Array], float]:
    started = clock()
    found = opened.run(opened.onnx_outputs, feed, options)
    return found, clock() - started


def _check_rows(model: ModelFile, opened: _Opened, found: Sequence[Array], rows: int) -> None:
    for name, array in zip(opened.outputs, found, strict=True):
        if array.shape[:1] != (rows,):
            raise NodeContractError(
                f"{model}: output {name!r} has shape {list(array.shape)} for a batch of {rows}: "
                "row i of the answer has to belong to row i of the request"
            )


def _no_rows(signature: Signature, inputs: Tensors) -> Tensors:
    """The answer to an empty batch, which many operators refuse. Sizes that only a run would tell are 0."""
    known: dict[int | str, int] = {}
    for name, spec in signature.inputs.items():
        known.update(zip(spec.shape, inputs[name].shape, strict=True))
    known.pop("?", None)
    return Tensors(
        {
            name: np.empty(
                [0, *(size if isinstance(size, int) else known.get(size, 0) for size in spec.shape[1:])],
                DATATYPES[spec.datatype].dtype,
            )
            for name, spec in signature.outputs.items()
        }
    )


def _zeros(specs: Mapping[str, TensorSpec], rows: int) -> dict[str, Array]:
    zeros: dict[str, Array] = {}
    for name, spec in specs.items():
        shape = (rows, *(size if isinstance(size, int) else 1 for size in spec.shape[1:]))
        dtype = DATATYPES[spec.datatype].dtype
        zeros[name] = np.full(shape, b"", dtype) if dtype.hasobject else np.zeros(shape, dtype)
    return zeros
