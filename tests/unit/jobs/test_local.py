"""A whole mesh with jobs in one process, on a real store: what is submitted is done, and counted."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from mesh.errors import SetupError
from mesh.jobs.client import JobClient
from mesh.jobs.local import LocalJobs
from mesh.jobs.records import JobState
from mesh.layers import LAYERS
from mesh.tensors import Tensors
from mesh.topology import Plan, compile_text
from tests.harness.nats import Nats, nats_server, settings_of

TEXT = """
mesh: v1
name: lowering
inputs:
  text: {datatype: BYTES, shape: [-1]}
nodes:
  lower: {uses: "nodes.text:Lowercase", inputs: {text: text}}
outputs: {text: lower.text}
"""
ASKED, ANSWER = Tensors({"text": ["AbC"]}), Tensors({"text": ["abc"]})


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as made:
        yield made


def plan(jobs: str, placement: str, folder: Path) -> Plan:
    return compile_text(f"{TEXT}{jobs}", LAYERS, folder=folder).plan(placement)


@pytest.mark.parametrize("placement", ["fused", "processes"])
async def test_a_job_is_done_in_every_placement(placement: str, server: Nats, tmp_path: Path) -> None:
    settings = settings_of(server)
    async with (
        LocalJobs(plan("jobs: {}", placement, tmp_path), settings) as local,
        JobClient(local.address) as jobs,
    ):
        job, existed = await jobs.submit(ASKED)
        done = await jobs.wait(job.id)
    assert (existed, done.state, done.outputs) == (False, JobState.DONE, ANSWER)


async def test_jobs_are_taken_in_without_a_worker_and_done_later(server: Nats, tmp_path: Path) -> None:
    found, settings = plan("jobs: {}", "fused", tmp_path), settings_of(server)
    async with LocalJobs(found, settings, working=False) as local, JobClient(local.address) as jobs:
        job, _ = await jobs.submit(ASKED)
        assert job.state is JobState.QUEUED
    async with LocalJobs(found, settings) as local, JobClient(local.address) as jobs:
        assert (await jobs.wait(job.id)).outputs == ANSWER


def test_a_graph_without_jobs_is_refused(server: Nats, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="<text> has no jobs"):
        LocalJobs(plan("", "fused", tmp_path), settings_of(server))
