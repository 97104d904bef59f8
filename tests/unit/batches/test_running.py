from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.batches import OutputFolder, TooManyErrors, finish_batch, join_batch, start_batch
from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.batches.parts import PartWriter
from mesh.context import Context
from mesh.errors import RequestError, SetupError, Unavailable
from mesh.tensors import Tensors
from mesh.testing import ScriptedHandler, settle
from tests.unit.batches.given import (
    Sums,
    batch_of,
    errors,
    graph_of,
    numbers,
    parquet_file,
    results,
    run_batch,
    runner,
)

GRAPH = graph_of()


async def test_every_row_has_its_answer_beside_what_is_kept_of_it(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(230))
    summary = await run_batch(GRAPH, batch_of(source, tmp_path / "out", keep=("id",)), Sums())
    table = results(tmp_path / "out")
    assert table.schema.names == ["row", "id", "total", "twice"]
    assert table.column("row").to_pylist() == list(range(230))
    assert table.column("id").to_pylist() == [f"row {row}" for row in range(230)]
    assert table.column("total").to_pylist() == [9.0 * row + 3 for row in range(230)]
    assert table.column("twice").to_pylist()[1] == [6, 8, 10]
    assert errors(tmp_path / "out") == []
    assert (summary.rows, summary.rows_done, summary.rows_failed, summary.shards) == (230, 230, 0, 5)
    assert sorted(os.listdir(tmp_path / "out")) == ["errors.parquet", "manifest.json", "parts"]


async def test_rows_that_fail_are_told_with_their_number_their_reason_and_what_is_kept_of_them(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(120, {3: -1, 60: -2, 119: float("nan")}))
    summary = await run_batch(GRAPH, batch_of(source, tmp_path / "out", keep=("id",)), Sums())
    assert errors(tmp_path / "out") == [
        {
            "row": 3,
            "code": "INVALID_ARGUMENT",
            "message": "is minus one",
            "node": "model",
            "tensor": "x",
            "id": "row 3",
        },
        {"row": 60, "code": "INTERNAL", "message": "choked", "node": "model", "tensor": "", "id": "row 60"},
    ]
    assert results(tmp_path / "out").column("row").to_pylist() == [row for row in range(120) if row not in (3, 60)]
    assert (summary.rows_done, summary.rows_failed) == (118, 2)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 120),
    bad=st.dictionaries(st.integers(0, 119), st.sampled_from([-1.0, -2.0])),
    shard_rows=st.integers(1, 60),
    request_rows=st.integers(1, 70),
    group=st.integers(1, 50),
)
async def test_each_row_ends_once_however_the_input_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    bad: dict[int, float],
    shard_rows: int,
    request_rows: int,
    group: int,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    bad = {row: value for row, value in bad.items() if row < rows}
    source = parquet_file(folder / "in.parquet", numbers(rows, bad), group=group)
    batch = batch_of(source, folder / "out", shard_rows=shard_rows, request_rows=request_rows)
    await run_batch(GRAPH, batch, Sums())
    table = results(folder / "out")
    assert table.column("row").to_pylist() == [row for row in range(rows) if row not in bad]
    assert [error["row"] for error in errors(folder / "out")] == sorted(bad)
    expected = numbers(rows, bad).column("x").to_pylist()
    assert table.column("total").to_pylist() == [sum(expected[row]) for row in range(rows) if row not in bad]


async def test_rows_that_cannot_be_read_and_rows_that_fit_nothing_end_among_the_errors(tmp_path: Path) -> None:
    lines = [f"{row},{row},{row}" for row in range(100)]
    lines[10], lines[70] = "1,2", "1,2,many"
    (tmp_path / "in.csv").write_text("a,b,c\n" + "\n".join(lines))
    batch = batch_of(tmp_path / "in.csv", tmp_path / "out", columns={"x": "a,b,c"}, keep=("c",))
    await run_batch(GRAPH, batch, Sums())
    assert [(error["row"], error["message"], error["c"]) for error in errors(tmp_path / "out")] == [
        (10, "it has 2 fields where the header has 3", ""),
        (70, "one of 'a' and its like holds 'many' where FP32 is needed", "many"),
    ]
    assert results(tmp_path / "out").num_rows == 98


async def test_a_kept_column_that_is_called_like_one_of_ours_is_told_apart(tmp_path: Path) -> None:
    table = numbers(3, {1: -1}).append_column("message", pa.array(["a", "b", "c"]))
    batch = batch_of(parquet_file(tmp_path / "in.parquet", table), tmp_path / "out", keep=("message",))
    await run_batch(GRAPH, batch, Sums())
    (error,) = errors(tmp_path / "out")
    assert (error["message"], error["input.message"]) == ("is minus one", "b")


async def test_rows_that_a_graph_makes_several_of_have_the_number_of_the_one_they_came_from(tmp_path: Path) -> None:
    async def lines(request: Tensors, context: Context) -> Tensors:
        counts = np.arange(len(request["x"])) % 3
        sources = np.repeat(np.arange(len(counts)), counts)
        return Tensors({"total": request["x"][sources, 0], "twice": request["x"][sources]}, sources=sources)

    source = parquet_file(tmp_path / "in.parquet", numbers(90), group=7)
    summary = await run_batch(GRAPH, batch_of(source, tmp_path / "out", shard_rows=45, request_rows=15), lines)
    assert results(tmp_path / "out").column("row").to_pylist() == [
        row for row in range(90) for _ in range(row % 15 % 3)
    ]
    assert {(error["row"], error["code"]) for error in errors(tmp_path / "out")} == {
        (row, "NOT_FOUND") for row in range(0, 90, 3)
    }
    assert (summary.rows_done, summary.rows_failed, summary.rows_written) == (60, 30, 90)


async def test_rows_of_several_shapes_are_written_in_their_order(tmp_path: Path) -> None:
    graph = graph_of("x: FP32[rows, ?] -> y: FP32[rows, ?]")

    async def same(request: Tensors, context: Context) -> Tensors:
        return Tensors({"y": request["x"]})

    column = [[1.0] * (row % 4) for row in range(40)]
    source = parquet_file(tmp_path / "in.parquet", pa.table({"x": column}))
    await run_batch(graph, batch_of(source, tmp_path / "out"), same)
    assert results(tmp_path / "out").column("y").to_pylist() == column


async def test_requests_are_bounded_in_number_and_in_rows(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(200))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out", shard_rows=200, request_rows=10))
    script = ScriptedHandler()
    async with runner(started, script, GRAPH.inputs) as running:
        shard = asyncio.ensure_future(running.run(started.plan.shard(0)))
        calls = [await script.request() for _ in range(started.plan.in_flight)]
        assert [call.request.rows for call in calls] == [10] * 4
        await settle()
        assert script.pending == 0
        for place in (3, 1, 2, 0):
            calls[place].reply(await Sums()(calls[place].request, calls[place].context))
        for _ in range(16):
            call = await script.request()
            assert script.pending < started.plan.in_flight
            call.reply(await Sums()(call.request, call.context))
        assert (await shard).rows_done == 200
    assert results(tmp_path / "out").column("row").to_pylist() == list(range(200))


async def test_what_is_done_is_told_as_it_goes_on(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(50, {3: -1}))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    told: list[tuple[int, int]] = []
    async with runner(started, Sums(), GRAPH.inputs) as running:
        await running.run(started.plan.shard(0), told=lambda done, failed: told.append((done, failed)))
    assert told == [(15, 1), (16, 0), (16, 0), (2, 0)]


async def test_a_shard_that_fails_or_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(100, {3: -1}))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    # As many as there are requests, and once more for each.
    gone = [Unavailable("gone") for _ in range(100)]
    async with runner(started, Sums(*gone), GRAPH.inputs) as running:
        with pytest.raises(Unavailable, match="gone"):
            await running.run(started.plan.shard(0))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        with pytest.raises(
            TooManyErrors, match="the batch stops at the first row that fails; row 3: node model: is minus"
        ):
            await running.run(started.plan.shard(0), most_errors=0)
    script = ScriptedHandler()
    again = join_batch(GRAPH, str(tmp_path / "out"))
    async with runner(again, script, GRAPH.inputs) as running:
        shard = asyncio.ensure_future(running.run(again.plan.shard(1)))
        call = await script.request()
        shard.cancel()
        await call.ended()
        with pytest.raises(asyncio.CancelledError):
            await shard
    folder = started.folder
    assert [os.listdir(one) for one in (folder.parts, folder.writing, folder.errors)] == [[], [], []]


async def test_as_many_rows_may_fail_as_is_said_and_the_first_that_is_one_too_many_is_named(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(50, {3: -1, 5: -1, 7: -1, 40: -1}))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        for most, text in (
            (0, "the batch stops at the first row that fails; row 3"),
            (1, "more than 1 row failed; row 5"),
            (3, "more than 3 rows failed; row 40"),
        ):
            with pytest.raises(TooManyErrors, match=text):
                await running.run(started.plan.shard(0), most_errors=most)
        assert (await running.run(started.plan.shard(0), most_errors=4)).rows_failed == 4


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(4)),
    foreseen=st.lists(st.none() | st.integers(0, 3), min_size=4, max_size=4),
    early=st.booleans(),
)
async def test_shards_are_whole_whichever_was_said_to_be_next(
    order: list[int], foreseen: list[int | None], early: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("next")
    started = start_batch(GRAPH, batch_of(parquet_file(folder / "in.parquet", numbers(200)), folder / "out"))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        for number, following in zip(order, foreseen, strict=True):
            shard = asyncio.ensure_future(running.run(started.plan.shard(number)))
            if not early:
                await shard
            if following is not None:
                running.prepare(started.plan.shard(following))
            assert (await shard).rows_done == 50
    assert results(folder / "out").column("row").to_pylist() == list(range(200))


async def test_what_is_read_ahead_of_an_input_that_changed_is_found_out(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(200))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        running.prepare(started.plan.shard(1))
        await running.run(started.plan.shard(0))
        running.prepare(started.plan.shard(1))
        parquet_file(source, numbers(200, {60: 5}))
        with pytest.raises(SetupError, match="the input is not what it was when the batch began"):
            await running.run(started.plan.shard(1))
    assert started.folder.committed() == {0}


async def test_the_first_of_two_who_run_the_same_shard_has_written_it(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(50, {3: -1}))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    joined = join_batch(GRAPH, str(tmp_path / "out"))
    shard = started.plan.shard(0)
    async with runner(started, Sums(), GRAPH.inputs) as one, runner(joined, Sums(), GRAPH.inputs) as other:
        first, second = await asyncio.gather(one.run(shard), other.run(shard))
        assert first == second
        content = started.folder.part(0).read_bytes()
    late = Sums()
    async with runner(join_batch(GRAPH, str(tmp_path / "out")), late, GRAPH.inputs) as another:
        assert await another.run(shard) == first
        assert late.requests == [], "what is written is not asked again"
    assert started.folder.part(0).read_bytes() == content
    assert os.listdir(started.folder.writing) == []
    assert os.listdir(started.folder.errors) == [first.errors]
    finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)
    assert [error["row"] for error in errors(tmp_path / "out")] == [3]


async def test_a_disk_that_is_full_fails_the_shard_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(100))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with runner(started, Sums(), GRAPH.inputs) as running:
        await running.run(started.plan.shard(0))
        monkeypatch.setattr(PartWriter, "_flush", full)
        with pytest.raises(Unavailable, match="the results cannot be written: No space left on device"):
            await running.run(started.plan.shard(1))
    assert started.folder.committed() == {0}
    assert os.listdir(started.folder.writing) == []


async def test_an_input_that_changes_under_a_shard_is_not_made_results_of(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(100))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out", shard_rows=100))

    async def handler(request: Tensors, context: Context) -> Tensors:
        parquet_file(source, numbers(100, {5: 7.0}))
        return await Sums()(request, context)

    async with runner(started, handler, GRAPH.inputs) as running:
        with pytest.raises(SetupError, match=r"in\.parquet was changed"):
            await running.run(started.plan.shard(0))
    assert started.folder.committed() == set()


async def test_a_batch_is_not_finished_while_parts_are_missing(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(500))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        await running.run(started.plan.shard(1))
    with pytest.raises(SetupError, match=r"9 parts are missing: part-00000\.parquet, part-00002\.parquet"):
        finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)
    assert not (tmp_path / "out" / "manifest.json").exists()


async def test_a_batch_is_not_finished_with_a_part_or_errors_that_are_not_its_own(tmp_path: Path) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(50, {3: -1}))
    started = start_batch(GRAPH, batch_of(source, tmp_path / "out"))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        commit = await running.run(started.plan.shard(0))
    told = (started.folder.errors / commit.errors).read_bytes()
    (started.folder.errors / commit.errors).unlink()
    with pytest.raises(SetupError, match="errors of shard 0: "):
        finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)
    (started.folder.errors / commit.errors).write_bytes(told)
    part = started.folder.part(0).read_bytes()
    pq.write_table(pa.table({"x": [1]}), started.folder.part(0))
    with pytest.raises(SetupError, match=r"part-00000\.parquet: it is no part of a batch"):
        finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)
    started.folder.part(0).write_bytes(part)
    finish_batch(started.folder, started.plan, started.source.schema, began=0.0, ended=1.0)
    finish_batch(started.folder, started.plan, started.source.schema, began=5.0, ended=6.0)
    assert OutputFolder(tmp_path / "out").manifest()["began"] == "1970-01-01T00:00:00+00:00"  # type: ignore[index]


@pytest.mark.parametrize("error", [Unavailable("gone")])
async def test_an_error_that_passes_costs_nothing_but_another_request(tmp_path: Path, error: RequestError) -> None:
    source = parquet_file(tmp_path / "in.parquet", numbers(50))
    handler = Sums(error)
    summary = await run_batch(GRAPH, batch_of(source, tmp_path / "out"), handler)
    assert (summary.rows_done, sorted(handler.requests)) == (50, [2, 16, 16, 16, 16])
