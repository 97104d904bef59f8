"""What was asked to be run later, read and held against what the graph takes, before anything is stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.errors import InvalidInput, NotFound
from mesh.jobs.callbacks.targets import CallbackSettings, check_callback
from mesh.jobs.messages import decode_callback, decode_priority
from mesh.jobs.records import Callback, Work
from mesh.signature import InputCheck, TensorSpec
from mesh.transports.codec import context_of, decode_tensors, seconds
from mesh.transports.contract import GRAPH, Limits
from mesh.v1 import job_service_pb2

__all__ = ["MAX_KEY", "MAX_TIMEOUT_S", "Submissions"]

MAX_KEY = 256
"""Characters of an idempotency key."""
MAX_TIMEOUT_S = 366 * 86_400.0
"""How long a job may be given; one that may take longer needs no deadline."""


class Submissions:
    """Reads requests for jobs of one graph.

    A request passes exactly where `Run` would begin to work on it: so a job that is stored does not fail for what its
    caller could have been told at once.

    Args:
        graph: The topology's name.
        inputs: What it takes.
        limits: The bounds that its calls keep to.
        callbacks: Who may be told.
    """

    def __init__(
        self, graph: str, inputs: Mapping[str, TensorSpec], *, limits: Limits, callbacks: CallbackSettings
    ) -> None:
        self._graph = graph
        self._check = InputCheck(inputs, node="")
        self._most_bytes = limits.most_bytes(GRAPH)
        self._callbacks = callbacks

    def read(self, request: job_service_pb2.SubmitJobRequest, now: float) -> Work:
        """What is to be done.

        Args:
            request: As it came.
            now: The time of day, from which its timeout counts.

        Raises:
            NotFound: It is for another graph.
            InvalidInput: The inputs are not the graph's, they are too large, or anything else in it is out of bounds;
                names the tensor where it is one.
        """
        run = request.request
        if run.graph not in ("", self._graph):
            raise NotFound(f"no graph is called {run.graph!r} here; there is: {self._graph}")
        if len(request.idempotency_key) > MAX_KEY:
            raise InvalidInput(f"the idempotency key is longer than {MAX_KEY} characters")
        context = context_of(run.options, None)
        try:
            inputs = decode_tensors(run.inputs)
            inputs.check_size(self._most_bytes, "takes")
            self._check(inputs)
            return Work(
                lane=decode_priority(request.priority),
                graph=self._graph,
                inputs=inputs,
                parameters=context.parameters,
                request_id=context.request_id,
                report=run.options.report_timings,
                deadline=_deadline(request, now),
                callback=self._callback(request),
            )
        except InvalidInput as error:
            error.request_id = context.request_id
            raise

    def _callback(self, request: job_service_pb2.SubmitJobRequest) -> Callback | None:
        if not request.HasField("callback"):
            return None
        callback = decode_callback(request.callback)
        check_callback(callback, self._callbacks)
        return callback


def _deadline(request: job_service_pb2.SubmitJobRequest, now: float) -> float | None:
    if not request.HasField("timeout"):
        return None
    timeout_s = seconds(request.timeout)
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        days = round(MAX_TIMEOUT_S / 86_400)
        raise InvalidInput(f"a job's timeout is above zero and at most {days} days, and not {timeout_s:g} s")
    return now + timeout_s
