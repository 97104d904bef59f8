"""Batches over a real store: begun, shared, cancelled, resumed, refused; taken over where their workers are gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.errors import InvalidInput, NotFound
from mesh.jobs.batches.client import BatchClient
from mesh.jobs.batches.desk import BatchDesk
from mesh.jobs.batches.messages import Batch, write_spec
from mesh.jobs.client import JobClient
from mesh.jobs.local import LocalJobs
from mesh.jobs.records import JobState, Lane
from mesh.jobs.store.job_store import JobStore
from mesh.layers import LAYERS
from mesh.topology import Plan, compile_text
from mesh.topology.graph_jobs import GraphBatch
from tests.harness.nats import Nats, nats_server, settings_of

TEXT = """
mesh: v1
name: lowering
inputs:
  text: {datatype: BYTES, shape: [-1]}
nodes:
  lower: {uses: "nodes.text:Lowercase", inputs: {text: text}}
outputs: {low: lower.text}
jobs:
  batches: {inputs: [in], outputs: [out]}
"""
PATIENCE_S = 60.0
"""How long anything is waited for that takes a moment."""


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as made:
        yield made


class Bench:
    """A mesh with batches, and folders for it."""

    def __init__(self, server: Nats, folder: Path) -> None:
        self.folder = folder
        for name in ("in", "out"):
            (folder / name).mkdir()
        self.settings = settings_of(server, lease_s=2.0)

    @property
    def plan(self) -> Plan:
        return compile_text(TEXT, LAYERS, folder=self.folder).plan("fused")

    @asynccontextmanager
    async def running(self, workers: int = 1) -> AsyncGenerator[BatchClient]:
        """A gateway, and workers."""
        async with AsyncExitStack() as lifetime:
            meshes = [
                LocalJobs(self.plan, self.settings, working=number < workers) for number in range(max(workers, 1))
            ]
            for mesh in meshes:
                await lifetime.enter_async_context(mesh)
            self.address = meshes[0].address
            yield await lifetime.enter_async_context(BatchClient(self.address))

    def source(self, rows: int, name: str = "texts.parquet", bad: tuple[int, ...] = ()) -> Path:
        path = self.folder / "in" / name
        texts = [None if row in bad else f"Row {row}" for row in range(rows)]
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=100)
        return path

    def batch(self, source: Path, name: str = "first", **settings: Any) -> GraphBatch:
        told: dict[str, Any] = {"shard_rows": 100, "request_rows": 50, "keep": ("text",)}
        return GraphBatch(input=str(source), output=str(self.folder / "out" / name), **told | settings)

    def rows(self, name: str = "first") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.folder / "out" / name / "parts").to_pylist()
        return found

    def errors(self, name: str = "first") -> list[int]:
        found: list[int] = pq.read_table(self.folder / "out" / name / "errors.parquet").column("row").to_pylist()
        return found


@pytest.fixture
def bench(server: Nats, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path)


async def over(batches: BatchClient, batch: Batch, told: Callable[[Batch], object] | None = None) -> Batch:
    async with asyncio.timeout(PATIENCE_S):
        return await batches.wait(batch.id, told=told)


async def under_way(batches: BatchClient, batch: Batch) -> None:
    """Return once its input was cut into shards, or it is over."""
    begun = asyncio.Event()
    waiting = asyncio.ensure_future(over(batches, batch, lambda one: one.shards and begun.set()))
    others = asyncio.ensure_future(begun.wait())
    await asyncio.wait((waiting, others), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    others.cancel()


async def test_a_batch_is_begun_told_of_and_done_and_each_row_is_there_once(bench: Bench) -> None:
    batch = bench.batch(bench.source(950, bad=(7, 900)))
    async with bench.running(workers=2) as batches:
        begun = await batches.start(batch)
        assert (begun.state, begun.spec) == (JobState.QUEUED, batch)
        done = await over(batches, begun)
        listed, token = await batches.list()
        assert ([one.id for one in listed], token) == ([begun.id], "")
        async with JobClient(bench.address) as jobs:
            assert (await jobs.list()).jobs == (), "a batch and its shards are no jobs that people submitted"
            with pytest.raises(NotFound):
                await jobs.get(begun.id)
    assert (done.state, done.error) == (JobState.DONE, None)
    assert (done.rows, done.rows_done, done.rows_failed, done.shards, done.shards_done) == (950, 948, 2, 10, 10)
    assert done.start_time is not None
    assert done.end_time is not None
    assert done.submit_time <= done.start_time <= done.end_time
    expected = [row for row in range(950) if row not in (7, 900)]
    assert bench.rows() == [{"row": row, "text": f"Row {row}", "low": b"row %d" % row} for row in expected]
    assert bench.errors() == [7, 900]
    manifest = json.loads((bench.folder / "out" / "first" / "manifest.json").read_bytes())
    assert (manifest["rows"], manifest["plan"]["graph_digest"]) == (950, bench.plan.graph.digest)


async def test_what_is_wrong_with_a_batch_is_told_before_it_is_stored(bench: Bench) -> None:
    source = bench.source(10)
    good = bench.batch(source)
    wrong = [
        (replace(good, input="in/texts.parquet"), "input has to be an absolute path"),
        (replace(good, input=str(source.with_name("none.parquet"))), "there is no such file or folder"),
        (replace(good, input="/etc/passwd"), "not lie in a folder that batches may read"),
        (replace(good, output=str(bench.folder / "elsewhere")), "not lie in a folder that batches may write to"),
        (replace(good, columns={"text": "txet"}), "no column 'txet' (did you mean 'text'?)"),
        (replace(good, outputs=("lwo",)), "no output 'lwo' (did you mean 'low'?)"),
        (replace(good, shard_rows=-1), "shard_rows has to be at least 1"),
        (replace(good, stop_after=-1), "stop_after has to be at least 0"),
    ]
    async with bench.running(workers=0) as batches:
        for batch, text in wrong:
            with pytest.raises(InvalidInput) as refused:
                await batches.start(batch)
            assert text in str(refused.value)
        with pytest.raises(NotFound, match="no graph is called 'other' here"):
            await batches.start(good, graph="other")
        for ask in (batches.get, batches.cancel, batches.resume):
            with pytest.raises(NotFound):
                await ask("nobody")
        assert await batches.list() == ([], "")


async def test_the_same_key_gives_the_same_batch_also_once_it_has_written_something(bench: Bench) -> None:
    batch = bench.batch(bench.source(300))
    async with bench.running() as batches:
        first = await batches.start(batch, key="one")
        await over(batches, first)
        again = await batches.start(batch, key="one")
        assert (again.id, again.state) == (first.id, JobState.DONE)
        with pytest.raises(InvalidInput, match="key"):
            await batches.start(replace(batch, keep=()), key="one")
        with pytest.raises(InvalidInput, match="it is not empty"):
            await batches.start(batch, key="two")


async def test_a_policy_ends_a_batch_that_fails_too_much_and_it_can_be_resumed_once_it_is_put_right(
    bench: Bench,
) -> None:
    source = bench.source(600, bad=(250, 251, 252))
    async with bench.running() as batches:
        begun = await batches.start(bench.batch(source, stop_after=2))
        failed = await over(batches, begun)
        assert failed.state is JobState.FAILED
        assert failed.error is not None
        assert "more than 2 rows failed; row 252: column 'text' is null" in str(failed.error)
        written = len(list((bench.folder / "out" / "first" / "parts").iterdir()))
        assert 0 < written < 6
        again = await batches.resume(begun.id)
        assert again.id != begun.id
        assert (await batches.resume(begun.id)).id == again.id
        assert (await over(batches, again)).state is JobState.FAILED


async def test_a_batch_that_is_cancelled_stops_and_goes_on_from_there_when_it_is_resumed(bench: Bench) -> None:
    source = bench.source(5000)
    async with bench.running(workers=0) as batches:
        begun = await batches.start(bench.batch(source))
        with pytest.raises(InvalidInput, match="is not over: there is nothing to go on with"):
            await batches.resume(begun.id)
        cancelled = await batches.cancel(begun.id)
        assert cancelled.state is JobState.CANCELLED
        resumed = await batches.resume(begun.id)
    async with bench.running() as batches:
        await under_way(batches, resumed)
        ended = await batches.cancel(resumed.id)
        parts = {path: path.read_bytes() for path in (bench.folder / "out" / "first" / "parts").iterdir()}
        if ended.state is JobState.CANCELLED:
            last = await over(batches, await batches.resume(resumed.id))
            assert last.state is JobState.DONE
    assert all(path.read_bytes() == content for path, content in parts.items()), "what was written is not done again"
    assert [row["row"] for row in bench.rows()] == list(range(5000))


async def test_another_input_is_not_gone_on_with(bench: Bench) -> None:
    source = bench.source(300, bad=(0,))
    async with bench.running() as batches:
        failed = await over(batches, await batches.start(bench.batch(source, stop_after=0)))
        assert failed.state is JobState.FAILED
        bench.source(400)
        with pytest.raises(InvalidInput, match=r"the input's texts\.parquet had 300 rows and has 400"):
            await batches.resume(failed.id)


async def test_shards_whose_worker_is_gone_are_done_by_another(bench: Bench) -> None:
    async with JobStore(bench.settings) as store:
        desk = BatchDesk(store, bench.plan.graph, inputs=None, outputs=None)
        begun = await desk.start(write_spec(bench.batch(bench.source(900))))
        # Somebody takes the batch, and a shard when there is one, and is never heard of again.
        (delivery,) = await store.take([Lane.BATCH], 1, PATIENCE_S)
        assert await delivery.begin("gone") is not None
        async with bench.running() as batches:
            done = await over(batches, begun)
    assert (done.state, done.rows_done, len(bench.rows())) == (JobState.DONE, 900, 900)


async def test_a_batch_goes_on_with_other_workers_when_its_own_leave(bench: Bench) -> None:
    async with bench.running(workers=0) as batches:
        begun = await batches.start(bench.batch(bench.source(3000), shard_rows=50))
        for _ in range(3):
            async with bench.running() as others:
                await under_way(others, begun)
        async with bench.running(workers=2) as others:
            done = await over(others, begun)
    assert (done.state, done.rows_done) == (JobState.DONE, 3000)
    assert [row["row"] for row in bench.rows()] == list(range(3000))


async def test_files_of_a_folder_and_lines_of_text_are_batches_too(bench: Bench) -> None:
    (bench.folder / "in" / "texts.csv").write_text("text\n" + "".join(f"Row {row}\n" for row in range(300)))
    folder = bench.folder / "in" / "files"
    folder.mkdir()
    for row in range(120):
        (folder / f"{row:03d}").write_text(f"Row {row}")
    async with bench.running() as batches:
        lines = await batches.start(bench.batch(bench.folder / "in" / "texts.csv", "lines"))
        files = await batches.start(bench.batch(folder, "files", keep=("name",), columns={"text": "content"}))
        for begun in (lines, files):
            done = await over(batches, begun)
            assert (done.state, done.error) == (JobState.DONE, None)
    assert [row["low"] for row in bench.rows("lines")] == [b"row %d" % row for row in range(300)]
    assert bench.rows("files")[7] == {"row": 7, "name": "007", "low": b"row 7"}
