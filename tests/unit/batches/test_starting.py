from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.batches import BatchPlan, OutputFolder, check_batch, join_batch, open_input, plan_batch, start_batch
from mesh.batches.plan import MOST_SHARDS
from mesh.errors import SetupError
from mesh.topology.graph import LayerSettings
from tests.unit.batches.given import Sums, batch_of, graph_of, numbers, parquet_file, results, run_batch, runner

GRAPH = graph_of(digest="d" * 64)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return parquet_file(tmp_path / "in.parquet", numbers(200))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


async def begun(source: Path, output: Path, **settings: Any) -> bytes:
    """A batch of which the second shard is written; gives that."""
    started = start_batch(GRAPH, batch_of(source, output, **settings))
    async with runner(started, Sums(), GRAPH.inputs) as running:
        await running.run(started.plan.shard(1))
    return started.folder.part(1).read_bytes()


async def test_what_is_written_is_not_done_again(source: Path, output: Path) -> None:
    written = await begun(source, output)
    handler = Sums()
    summary = await run_batch(GRAPH, batch_of(source, output), handler, resume=True)
    assert sum(handler.requests) == 150
    assert (summary.rows_done, results(output).column("row").to_pylist()) == (200, list(range(200)))
    assert OutputFolder(output).part(1).read_bytes() == written


async def test_a_shard_size_that_is_not_given_is_that_of_before(source: Path, output: Path) -> None:
    await begun(source, output)
    assert start_batch(GRAPH, batch_of(source, output, shard_rows=0), resume=True).plan.shard_rows == 50


async def test_a_batch_that_is_done_is_found_done(source: Path, output: Path) -> None:
    await run_batch(GRAPH, batch_of(source, output), Sums())
    again = start_batch(GRAPH, batch_of(source, output), resume=True)
    assert again.done
    assert again.plan.rows == 200
    with pytest.raises(SetupError, match=r"there is errors\.parquet in it \(resume it, or name another"):
        start_batch(GRAPH, batch_of(source, output))


@pytest.mark.parametrize("left", [[], [".mesh"]])
def test_a_batch_that_died_before_its_plan_was_written_begins_anew(source: Path, output: Path, left: list[str]) -> None:
    output.mkdir()
    for name in left:
        (output / name).mkdir()
    assert not start_batch(GRAPH, batch_of(source, output), resume=True).folder.committed()


@pytest.mark.parametrize(
    ("graph", "settings", "text"),
    [
        (graph_of(name="other", digest="d" * 64), {}, "the graph was sums and is other"),
        (graph_of(digest="e" * 64), {}, "the model of node model was dddddddddddd and is eeeeeeeeeeee"),
        (graph_of(digest="e" * 64), {}, f"the graph was {GRAPH.digest[:12]} and is "),
        (GRAPH, {"columns": {"x": "y"}}, "tensor x was fed by x and is by y"),
        (GRAPH, {"keep": ("id",)}, "the columns kept were none and are id"),
        (GRAPH, {"outputs": ("total",)}, "the outputs were total, twice and are total"),
        (GRAPH, {"shard_rows": 25}, "a shard had 50 rows and has 25"),
        (GRAPH, {"parameters": {"lang": "en"}}, r"the parameters were {} and are {'lang': 'en'}"),
    ],
)
async def test_another_batch_is_not_gone_on_with_and_what_is_different_is_told(
    tmp_path: Path, output: Path, graph: Any, settings: dict[str, Any], text: str
) -> None:
    table = numbers(200)
    source = parquet_file(tmp_path / "in.parquet", table.append_column("y", table.column("x")))
    await begun(source, output)
    with pytest.raises(SetupError, match="what is there is of another batch:") as refused:
        start_batch(graph, batch_of(source, output, **settings), resume=True)
    assert text.replace("\\", "") in str(refused.value)
    assert OutputFolder(output).committed() == {1}
    assert start_batch(GRAPH, batch_of(source, output), resume=True).folder.committed() == {1}


async def test_another_input_is_not_gone_on_with(source: Path, output: Path) -> None:
    await begun(source, output)
    for rows, bad, text in (
        (300, {}, r"in\.parquet had 200 rows and has 300"),
        (200, {7: 7.5}, r"in\.parquet was changed"),
    ):
        parquet_file(source, numbers(rows, bad))
        with pytest.raises(SetupError, match=text):
            start_batch(GRAPH, batch_of(source, output), resume=True)
        with pytest.raises(SetupError, match=text):
            join_batch(GRAPH, str(output))


def test_files_that_came_or_went_are_told_by_name(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcdefghij":
        parquet_file(folder / f"{name}.parquet", numbers(5))
    start_batch(GRAPH, batch_of(folder, output))
    for name in "bcdefgh":
        (folder / f"{name}.parquet").unlink()
    parquet_file(folder / "k.parquet", numbers(5))
    with pytest.raises(SetupError) as refused:
        start_batch(GRAPH, batch_of(folder, output), resume=True)
    assert "the input lacks b.parquet, which was there" in str(refused.value)
    assert "and 3 more differences in the input's files" in str(refused.value)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_has_something_else_in_it_is_not_written_to(source: Path, output: Path, resume: bool) -> None:
    output.touch()
    with pytest.raises(SetupError, match="it is a file, where a folder is needed"):
        start_batch(GRAPH, batch_of(source, output), resume=resume)
    output.unlink()
    output.mkdir()
    (output / "mine.txt").touch()
    with pytest.raises(SetupError, match=r"it is not empty: there is mine\.txt in it"):
        start_batch(GRAPH, batch_of(source, output), resume=resume)


def test_input_and_output_do_not_lie_in_one_another(tmp_path: Path, source: Path) -> None:
    for one, other in ((source, source), (tmp_path, tmp_path / "out"), (source, tmp_path)):
        with pytest.raises(SetupError, match="the input lies in it, or it lies in the input"):
            start_batch(GRAPH, batch_of(one, other))
    assert sorted(os.listdir(tmp_path)) == ["in.parquet"]


def test_only_folders_that_are_allowed_are_read_and_written(tmp_path: Path, source: Path, output: Path) -> None:
    allowed = [tmp_path]
    start_batch(GRAPH, batch_of(source, output), inputs_within=allowed, outputs_within=allowed)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path.parent)
    for one, other, text in (
        (source, tmp_path / "link" / "out", "batches may write to"),
        (source, tmp_path / "other" / ".." / ".." / "out", "batches may write to"),
        (tmp_path / "link" / tmp_path.name / "in.parquet", tmp_path.parent / "x", "batches may write to"),
        (Path("/etc/passwd"), tmp_path / "y", "batches may read"),
    ):
        with pytest.raises(SetupError, match=text):
            start_batch(GRAPH, batch_of(one, other), inputs_within=allowed, outputs_within=allowed)


def test_nothing_is_written_where_something_is_wrong_with_the_batch(source: Path, output: Path) -> None:
    for settings in ({"outputs": ("totel",)}, {"columns": {"x": "z"}}, {"keep": ("z",)}, {"shard_rows": -1}):
        with pytest.raises(SetupError):
            start_batch(GRAPH, batch_of(source, output, **settings))
    assert not output.exists()


def test_who_starts_the_same_batch_second_takes_part_in_it(source: Path, output: Path) -> None:
    first = start_batch(GRAPH, batch_of(source, output))
    second = start_batch(GRAPH, batch_of(source, output), resume=True)
    joined = join_batch(GRAPH, str(output))
    assert first.plan == second.plan == joined.plan
    with pytest.raises(SetupError, match="no batch was started here"):
        join_batch(GRAPH, str(output.parent / "nothing"))
    with pytest.raises(SetupError, match="when the batch began, and is"):
        join_batch(graph_of(digest="e" * 64), str(output))


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.npy"])
async def test_who_joins_reads_the_rows_that_were_planned(tmp_path: Path, output: Path, name: str) -> None:
    rows = numbers(200).column("x").to_pylist()
    if name == "in.csv":
        (tmp_path / name).write_text("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in rows))
    elif name == "in.jsonl":
        (tmp_path / name).write_text("\n".join(json.dumps({"x": list(map(int, row))}) for row in rows))
    else:
        np.save(tmp_path / name, np.array(rows, np.float32))
    columns = {"x": "a,b,c"} if name == "in.csv" else {}
    start_batch(GRAPH, batch_of(tmp_path / name, output, columns=columns))
    joined = join_batch(GRAPH, str(output))
    async with runner(joined, Sums(), GRAPH.inputs) as running:
        await running.run(joined.plan.shard(3))
    assert results(output).column("total").to_pylist() == [sum(row) for row in rows[150:]]


def test_a_plan_that_is_written_down_is_read_as_it_was(source: Path, output: Path) -> None:
    plan = start_batch(GRAPH, batch_of(source, output, parameters={"a": 1, "b": 0.5, "c": True, "d": "x"})).plan
    again = BatchPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest
    assert replace(plan, path="elsewhere").digest == plan.digest
    assert replace(plan, keep=("id",)).digest != plan.digest


def test_a_plan_that_cannot_be_read_is_told(source: Path, output: Path) -> None:
    start_batch(GRAPH, batch_of(source, output))
    (output / ".mesh" / "plan.json").write_text("{}")
    with pytest.raises(SetupError, match="its plan cannot be read"):
        start_batch(GRAPH, batch_of(source, output), resume=True)


def planned(source: Path, graph: Any = GRAPH, **settings: Any) -> BatchPlan:
    told = {"shard_rows": 0, "request_rows": 0} | settings
    return plan_batch(graph, batch_of(source, source.parent / "out", **told), open_input(source))


def test_shards_are_whole_requests_few_enough_and_many_enough(tmp_path: Path) -> None:
    for rows, shard_rows in ((100, 256), (10_605, 663), (100_000, 8192)):
        plan = planned(parquet_file(tmp_path / "in.parquet", numbers(rows), group=1 << 20))
        assert (plan.shard_rows, plan.request_rows) == (shard_rows, min(shard_rows, 4096))
        assert [plan.shard(number).stop for number in range(plan.shards)][-1] == rows
    with pytest.raises(SetupError, match="100001 rows in shards of 1 are more than 100000 shards"):
        planned(parquet_file(tmp_path / "in.parquet", numbers(MOST_SHARDS + 1), group=1 << 20), shard_rows=1)


def test_requests_together_are_no_more_than_what_a_queue_takes_on(source: Path) -> None:
    for rows, expected in ((1024, (512, 2)), (64, (32, 2)), (1, (1, 1))):
        layers = (LayerSettings("queue", {"max_rows": rows}), LayerSettings("batch", {"max_rows": 8}))
        plan = planned(source, graph_of(layers=layers), shard_rows=1000)
        assert (plan.request_rows, plan.in_flight) == expected
    plan = planned(source, graph_of(layers=(LayerSettings("queue", {"max_rows": 100}),)), request_rows=40)
    assert (plan.request_rows, plan.in_flight) == (40, 2)


def test_an_output_that_is_called_like_the_number_of_the_row_is_refused(source: Path) -> None:
    with pytest.raises(SetupError, match="'row' is the number of the row"):
        planned(source, graph_of("x: FP32[rows, 3] -> row: FP32[rows]"))


def test_an_output_that_does_not_exist_is_told_with_the_nearest(source: Path) -> None:
    with pytest.raises(SetupError, match=r"the graph has no output 'totel' \(did you mean 'total'\?\)"):
        planned(source, outputs=("totel",))


@pytest.mark.parametrize(("name", "line"), [("in.csv", "1,2,3\n"), ("in.jsonl", '{"x": [1, 2, 3]}\n')])
def test_a_look_at_a_batch_writes_nothing_and_reads_only_the_beginning_of_text(
    tmp_path: Path, output: Path, name: str, line: str
) -> None:
    head = "a,b,c\n" if name == "in.csv" else ""
    (tmp_path / name).write_text(head + line * 1_000_000 + '"')
    batch = batch_of(tmp_path / name, output, columns={"x": "a,b,c"} if head else {})
    check_batch(GRAPH, batch)
    with pytest.raises(SetupError, match="no output 'totel'"):
        check_batch(GRAPH, replace(batch, outputs=("totel",)))
    with pytest.raises(SetupError, match="batches may read"):
        check_batch(GRAPH, batch, inputs_within=[])
    assert not output.exists()


async def test_a_look_at_what_is_to_go_on_tells_the_difference(tmp_path: Path, source: Path, output: Path) -> None:
    await begun(source, output)
    check_batch(GRAPH, batch_of(source, output, shard_rows=0), resume=True)
    with pytest.raises(SetupError, match="a shard had 50 rows and has 25"):
        check_batch(GRAPH, batch_of(source, output, shard_rows=25), resume=True)
    parquet_file(source, numbers(300))
    with pytest.raises(SetupError, match=r"in\.parquet had 200 rows and has 300"):
        check_batch(GRAPH, batch_of(source, output), resume=True)
    text = tmp_path / "in.csv"
    text.write_text("a,b,c\n" + "1,2,3\n" * 10)
    batch = batch_of(text, tmp_path / "other", columns={"x": "a,b,c"})
    start_batch(GRAPH, batch)
    check_batch(GRAPH, batch, resume=True)
    text.write_text("a,b,c\n" + "1,2,3\n" * 11)
    with pytest.raises(SetupError, match=r"in\.csv had 10 rows and has 11"):
        check_batch(GRAPH, batch, resume=True)
