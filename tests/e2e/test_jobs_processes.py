"""Jobs over real processes: submitted by a generated stub, and done whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.tensors import Tensors
from mesh.transports.codec import decode_tensors, encode_tensors
from mesh.v1 import graph_service_pb2, graph_service_pb2_grpc, job_service_pb2, job_service_pb2_grpc
from tests.harness.nats import free_port
from tests.harness.processes import DEADLINE_S, MeshUp, StartMesh, run_mesh, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

LABOURED = Path(__file__).parent / "meshes" / "laboured.yaml"
DONE = job_service_pb2.JOB_STATE_DONE


class Labour:
    """A job and what its node wrote down about it. It waits at a gate until it is let through."""

    def __init__(self, log: Path, takes: float | str = "gate") -> None:
        self._log = log
        self.inputs = Tensors({"script": [json.dumps({"log": str(log), "takes": {"work": takes}})]})

    def began(self) -> int:
        """How often its node has begun."""
        return self._log.read_text().splitlines().count("work began") if self._log.exists() else 0

    def until_begun(self, times: int = 1) -> None:
        """Wait until its node has begun so often."""
        wait_until(lambda: self.began() >= times, f"never begun {times} times")

    def open_gate(self) -> None:
        """Let it through."""
        self._log.with_suffix(".open").touch()


class Gateway:
    """A gateway as callers in other languages have it: generated stubs and an address."""

    def __init__(self, address: str, lifetime: ExitStack) -> None:
        channel = lifetime.enter_context(grpc.insecure_channel(address.removeprefix("grpc://")))
        self._jobs: Any = job_service_pb2_grpc.JobServiceStub(channel)
        self._graph: Any = graph_service_pb2_grpc.GraphServiceStub(channel)

    def submit(self, labour: Labour, key: str = "") -> str:
        """Store a job; its id."""
        run = graph_service_pb2.RunRequest(inputs=encode_tensors(labour.inputs))
        request = job_service_pb2.SubmitJobRequest(request=run, idempotency_key=key)
        answer: job_service_pb2.SubmitJobResponse = self._jobs.SubmitJob(
            request, timeout=DEADLINE_S, wait_for_ready=True
        )
        return answer.job.id

    def job(self, name: str) -> job_service_pb2.Job:
        """A job as it stands."""
        request = job_service_pb2.GetJobRequest(id=name)
        answer: job_service_pb2.GetJobResponse = self._jobs.GetJob(request, timeout=DEADLINE_S, wait_for_ready=True)
        return answer.job

    def ended(self, name: str, labour: Labour) -> job_service_pb2.Job:
        """The job once it is done; its answer is what was asked."""
        wait_until(lambda: self._state(name) == DONE, f"job {name} was never done")
        job = self.job(name)
        assert decode_tensors(job.outputs) == labour.inputs
        return job

    def _state(self, name: str) -> int:
        try:
            return self.job(name).state
        except grpc.RpcError as error:
            # The gateway was killed under the call, or the store just then.
            code: Any = error.code()  # pyright: ignore[reportAttributeAccessIssue]
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            return job_service_pb2.JOB_STATE_UNSPECIFIED

    def run(self, labour: Labour) -> Tensors:
        """Ask the graph and wait."""
        request = graph_service_pb2.RunRequest(inputs=encode_tensors(labour.inputs))
        return decode_tensors(self._graph.Run(request, timeout=DEADLINE_S).outputs)


@pytest.fixture
def lifetime() -> Generator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(scope="module")
def shared(start_shared_mesh: StartMesh, tmp_path_factory: pytest.TempPathFactory) -> MeshUp:
    """A mesh with two workers on jobs. Tests leave it as they found it: serving."""
    mesh = start_shared_mesh(str(LABOURED), "--data", str(tmp_path_factory.mktemp("data")))
    mesh.ready()
    return mesh


@pytest.fixture
def gateway(shared: MeshUp, lifetime: ExitStack) -> Gateway:
    return Gateway(shared.ready(), lifetime)


def killed(mesh: MeshUp, name: str) -> None:
    """Kill a process, and wait until it is there again."""
    pattern = rf"^mesh: {name}: ready"
    times = sum(line.startswith(f"mesh: {name}: ready") for line in mesh.lines)
    os.kill(mesh.pid(name), signal.SIGKILL)
    mesh.until(pattern, times + 1)


def test_a_job_is_taken_over_from_a_worker_that_was_killed(shared: MeshUp, gateway: Gateway, tmp_path: Path) -> None:
    labour = Labour(tmp_path / "log")
    name = gateway.submit(labour)
    labour.until_begun()
    (attempt,) = gateway.job(name).attempts
    worker, _, pid = attempt.worker.partition("/")
    assert int(pid) == shared.pid(worker)
    killed(shared, worker)
    labour.until_begun(2)
    labour.open_gate()
    job = gateway.ended(name, labour)
    assert job.attempt_count == 2
    assert not job.attempts[0].HasField("end_time"), "its worker was lost"
    assert job.attempts[1].worker != attempt.worker


def test_work_goes_on_while_the_gateway_is_down(shared: MeshUp, gateway: Gateway, tmp_path: Path) -> None:
    labour = Labour(tmp_path / "log")
    name = gateway.submit(labour)
    labour.until_begun()
    killed(shared, "gateway")
    labour.open_gate()
    assert gateway.ended(name, labour).attempt_count == 1


def test_what_was_acknowledged_outlives_the_store(shared: MeshUp, gateway: Gateway, tmp_path: Path) -> None:
    labours = [Labour(tmp_path / str(index)) for index in range(10)]
    names = [gateway.submit(labour, key=f"outlives-{index}") for index, labour in enumerate(labours)]
    labours[0].until_begun()
    killed(shared, "nats-server")
    for labour in labours:
        labour.open_gate()
    for name, labour in zip(names, labours, strict=True):
        gateway.ended(name, labour)
    assert [gateway.submit(labour, key=f"outlives-{index}") for index, labour in enumerate(labours)] == names


def test_a_mesh_that_was_killed_leaves_nothing_running_and_loses_nothing(
    start_mesh: StartMesh, tmp_path: Path, lifetime: ExitStack
) -> None:
    data = str(tmp_path / "data")
    first = start_mesh(str(LABOURED), "--data", data, "--workers", "gateway")
    labour = Labour(tmp_path / "log", takes=0.0)
    # No worker runs: it is taken in all the same.
    address = first.ready()
    name = Gateway(address, lifetime).submit(labour)
    assert Gateway(address, lifetime).job(name).state == job_service_pb2.JOB_STATE_QUEUED
    first.signal(signal.SIGKILL)
    first.wait()
    assert first.all_gone(), "the store too dies with its mesh"
    second = start_mesh(str(LABOURED), "--data", data)
    Gateway(second.ready(), lifetime).ended(name, labour)
    refused = run_mesh("up", str(LABOURED), "--data", data, "--listen", "grpc://127.0.0.1:0")
    assert (refused.returncode, refused.stderr) == (
        2,
        f"the data folder {data} is used by another mesh (process {second.process.pid})\n",
    )
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert second.all_gone()


def test_a_worker_that_is_told_to_leave_gives_its_jobs_back(
    start_mesh: StartMesh, tmp_path: Path, lifetime: ExitStack
) -> None:
    data = str(tmp_path / "data")
    first = start_mesh(str(LABOURED), "--data", data, "--grace", "100ms")
    labour = Labour(tmp_path / "log")
    name = Gateway(first.ready(), lifetime).submit(labour)
    labour.until_begun()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    second = start_mesh(str(LABOURED), "--data", data)
    gateway = Gateway(second.ready(), lifetime)
    labour.until_begun(2)
    labour.open_gate()
    assert gateway.ended(name, labour).attempt_count == 1, "one that was given back is no attempt"


def test_a_gateway_serves_while_its_store_is_not_there(
    start_mesh: StartMesh, tmp_path: Path, lifetime: ExitStack
) -> None:
    text = LABOURED.read_text().replace("jobs:\n", f"jobs:\n  store: ['nats://127.0.0.1:{free_port()}']\n")
    file = tmp_path / "elsewhere.yaml"
    file.write_text(text)
    (tmp_path / "slow_nodes.py").write_text((LABOURED.parent / "slow_nodes.py").read_text())
    mesh = start_mesh(str(file))
    gateway = Gateway(mesh.ready(), lifetime)
    labour = Labour(tmp_path / "log", takes=0.0)
    assert gateway.run(labour) == labour.inputs
    with pytest.raises(grpc.RpcError) as refused:
        gateway.submit(labour)
    code: Any = refused.value.code()  # pyright: ignore[reportAttributeAccessIssue]
    assert code == grpc.StatusCode.UNAVAILABLE
    mesh.signal(signal.SIGTERM)
    assert mesh.wait() == 0
