"""`schedules:`: due at some time, in some time zone, with a batch that the graph can run."""

from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from mesh.layers import LAYERS
from mesh.topology import Graph, GraphBatch, GraphSchedule, compile_text, json_schema
from mesh.topology.source import read
from mesh.topology.spec_jobs import MAX_SCHEDULES
from tests.unit.topology.given import FOLDER, GOOD, changed, compiled, told

SIMPLE = """\
  nightly: {cron: "30 2 * * *", batch: {input: in, output: "out/{date}"}}
"""
WHOLE = """\
  nightly:
    cron: "*/30 2 * * *"
    timezone: Europe/Berlin
    window: 4h
    overlap: wait
    catch_up: all
    batch:
      input: data/{date}.parquet
      input_format: parquet
      columns: {image: pixels}
      output: "/srv/{schedule}/{date}-{time}"
      keep: [id, size]
      outputs: [label]
      shard_rows: 1000
      request_rows: 64
      on_error: {stop_after: 3}
      parameters: {text: a, whole: 1, part: 1.5, truth: true}
"""
HEAD = f"{GOOD}jobs: {{}}\nschedules:\n"
SCHEMA = Draft202012Validator(json_schema(LAYERS))
FIVE = "(five fields, minute hour day month weekday, as in '30 2 * * *')"
CRON = '"30 2 * * *"'


def schedule(text: str) -> GraphSchedule:
    (made,) = compiled(HEAD + text).graph.schedules
    return made


def test_what_is_left_out_has_the_defaults_of_the_page() -> None:
    assert schedule(SIMPLE) == GraphSchedule(
        name="nightly",
        cron="30 2 * * *",
        timezone="UTC",
        window_s=None,
        overlap="skip",
        catch_up="latest",
        batch=GraphBatch(input=str(FOLDER / "in"), output=str(FOLDER / "out/{date}")),
        line=32,
    )


def test_everything_may_be_said() -> None:
    assert schedule(WHOLE) == GraphSchedule(
        name="nightly",
        cron="*/30 2 * * *",
        timezone="Europe/Berlin",
        window_s=4 * 3600.0,
        overlap="wait",
        catch_up="all",
        batch=GraphBatch(
            input=str(FOLDER / "data/{date}.parquet"),
            input_format="parquet",
            columns={"image": "pixels"},
            output="/srv/{schedule}/{date}-{time}",
            keep=("id", "size"),
            outputs=("label",),
            shard_rows=1000,
            request_rows=64,
            stop_after=3,
            parameters={"text": "a", "whole": 1, "part": 1.5, "truth": True},
        ),
        line=32,
    )


@pytest.mark.parametrize(("policy", "stop_after"), [("keep-going", None), ("stop", 0), ("{stop_after: 7}", 7)])
def test_a_policy_for_errors_is_how_many_rows_may_fail(policy: str, stop_after: int | None) -> None:
    assert schedule(changed("{stop_after: 3}", policy, WHOLE)).batch.stop_after == stop_after


def test_braces_in_the_name_of_the_folder_stand_for_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "{date}"
    folder.mkdir()
    (made,) = compile_text(HEAD + SIMPLE, LAYERS, folder=folder).graph.schedules
    assert made.batch.output.format(date="today") == str(folder / "out/today")


@pytest.mark.parametrize("text", [SIMPLE, WHOLE])
def test_the_schema_takes_what_the_compiler_takes(text: str) -> None:
    SCHEMA.validate(read(HEAD + text, "t.yaml").value)
    assert compiled(HEAD + text).graph.digest == compiled(GOOD).graph.digest


@pytest.mark.parametrize("text", [SIMPLE, WHOLE])
def test_a_graph_with_schedules_can_be_sent_to_another_process(text: str) -> None:
    adapter, graph = TypeAdapter(Graph), compiled(HEAD + text).graph
    sent = adapter.validate_json(adapter.dump_json(graph))
    assert sent == graph
    assert [type(one) for one in sent.schedules[0].batch.parameters.values()] == [
        type(one) for one in graph.schedules[0].batch.parameters.values()
    ]


@pytest.mark.parametrize(
    "cron",
    [
        "@daily",
        "@Monthly".lower(),
        "0 2 * jan-MAR,12 Mon",
        "0 2 L * *",
        "0 2 * * L5",
        "5 4 * * sun#2",
        "0 2 * * * 30",
        "0 0 29 2 *",
    ],
)
def test_a_time_may_be_written_in_any_way_that_cron_has(cron: str) -> None:
    assert schedule(changed(CRON, f'"{cron}"', SIMPLE)).cron == cron


@pytest.mark.parametrize(
    ("cron", "problems"),
    [
        ("30 2 * *", [f"'30 2 * *' has 4 fields {FIVE}"]),
        ("30 2 * * * 0 2030", [f"'30 2 * * * 0 2030' has 7 fields {FIVE}"]),
        (" ", [f"' ' has 0 fields {FIVE}"]),
        ("60 2 * * *", [f"'60' is no minute, in '60 2 * * *' {FIVE}"]),
        (
            "60 24 32 13 9 60",
            [
                f"{one} in '60 24 32 13 9 60' {FIVE}"
                for one in (
                    "'13' is no month,",
                    "'24' is no hour,",
                    "'32' is no day of the month,",
                    "'60' is no minute,",
                    "'60' is no second,",
                    "'9' is no weekday,",
                )
            ],
        ),
        ("*/0 2 * * *", [f"'*/0' is no minute, in '*/0 2 * * *' {FIVE}"]),
        ("0 2 * mon *", [f"'mon' is no month, in '0 2 * mon *' {FIVE}"]),
        # What croniter would fill in at random, or by a hash: another time in each process.
        ("R 2 * * *", [f"'R' is no minute, in 'R 2 * * *' {FIVE}"]),
        ("H(0-29) 2 * * *", [f"'H(0-29)' is no minute, in 'H(0-29) 2 * * *' {FIVE}"]),
        (
            "@reboot",
            ["'@reboot' is no time (there is: @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually)"],
        ),
        ("@dayly", ["'@dayly' is no time (did you mean '@daily'?)"]),
        ("30 2 31 2 *", ["'30 2 31 2 *' is never due: there is no such day"]),
        ("30 2 31 4,6,9,11 *", ["'30 2 31 4,6,9,11 *' is never due: there is no such day"]),
    ],
)
def test_a_time_that_is_none_is_told(cron: str, problems: list[str]) -> None:
    assert told(HEAD + changed(CRON, f'"{cron}"', SIMPLE)) == [f"32:19: {one}" for one in problems]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=string.digits + "*/,-LlRrHhJanMon#@? ", max_size=24))
def test_whatever_is_written_as_a_time_is_taken_or_told_in_plain_words(cron: str) -> None:
    for problem in told(HEAD + changed(CRON, f'"{cron}"', SIMPLE)):
        assert problem.startswith("32:")
        assert "croniter" not in problem


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        ("window: 4h", "windw: 4h", ["35:5: 'windw' is not taken here (did you mean 'window'?)"]),
        ("window: 4h", "window: 10ms", ["35:13: 'window' has to be at least 1s, not '10ms'"]),
        ("wait", "queue", ["36:14: 'overlap' has to be 'skip', 'wait' or 'cancel', not 'queue'"]),
        ("catch_up: all", "catch_up: some", ["37:15: 'catch_up' has to be 'none', 'latest' or 'all', not 'some'"]),
        (
            "Europe/Berlin",
            "Europe/Berlim",
            ["34:15: no time zone is called 'Europe/Berlim' (did you mean 'Europe/Berlin'?)"],
        ),
        ("{image: pixels}", "{imag: pixels}", ["41:17: the graph has no input 'imag' (did you mean 'image'?)"]),
        ("{image: pixels}", "{image: 5}", ["41:24: 'batch.columns.image' has to be a text, not 5 (put it in quotes)"]),
        ("[label]", "[lable]", ["44:17: the graph has no output 'lable' (did you mean 'label'?)"]),
        ("[label]", "[label, label]", ["44:24: 'label' comes twice"]),
        ("[label]", "[]", ["44:16: 'batch.outputs' may not be empty"]),
        ("[id, size]", "[id, id]", ["43:18: 'id' comes twice"]),
        ("[id, size]", "[id, label]", ["43:18: an output of the graph is called 'label', too"]),
        ("shard_rows: 1000", "shard_rows: 0", ["45:19: 'batch.shard_rows' has to be at least 1, not 0"]),
        (
            "{stop_after: 3}",
            "3",
            ["47:17: 'batch.on_error' has to be keep-going, stop, or {stop_after: N}, not 3"],
        ),
        (
            "whole: 1,",
            "whole: 9223372036854775808,",
            ["48:36: 'batch.parameters.whole': 9223372036854775808 does not fit into 64 bits with a sign"],
        ),
        ("      output:", "      outputt:", ["42:7: 'outputt' is not taken here (did you mean 'output'?)"]),
        # Where the results go.
        (
            "{date}-{time}",
            "{time}",
            ["42:15: every batch would write to '/srv/{schedule}/{time}' (write {date} somewhere in it)"],
        ),
        (
            "{date}-{time}",
            "{date}",
            [
                "42:15: the batches of one day would all write to '/srv/{schedule}/{date}' "
                "(write {time} somewhere in it, too)"
            ],
        ),
        ("{date}-{time}", "{day}-{time}", ["42:32: {day} stands for nothing (there is: {date}, {time}, {schedule})"]),
        (
            "{date}-{time}",
            "{date!r}-{time:5}",
            [
                "42:32: {date!r} stands for nothing (there is: {date}, {time}, {schedule})",
                "42:41: {time:5} stands for nothing (there is: {date}, {time}, {schedule})",
            ],
        ),
        ("{date}-{time}", "{date}-{time", ["42:39: a '{' by itself (write {{ for the character)"]),
        ("data/{date}.parquet", '"data/{date}}"', ["39:26: a '}' by itself (write }} for the character)"]),
    ],
)
def test_a_mistake_is_told_in_its_place(old: str, new: str, problems: list[str]) -> None:
    assert told(HEAD + changed(old, new, WHOLE)) == problems


def test_a_schedule_that_is_due_once_a_day_needs_the_date_alone() -> None:
    assert told(HEAD + SIMPLE) == []
    for often in ('"0 * * * *"', '"0,1 2 * * *"', '"0 2 * * * *"', "'@hourly'"):
        (problem,) = told(HEAD + changed(CRON, often, SIMPLE))
        assert "write {time} somewhere in it, too" in problem


def test_schedules_need_jobs() -> None:
    text = f"{GOOD}schedules:\n{SIMPLE}"
    assert told(text) == ["30:1: schedules need jobs, whose workers begin their batches (write jobs: {})"]
    assert not SCHEMA.is_valid(read(text, "t.yaml").value)


def test_there_may_be_many_schedules_and_not_any_number() -> None:
    def named(count: int) -> str:
        return HEAD + "".join(SIMPLE.replace("nightly", f"nightly-{index}") for index in range(count))

    assert len(compiled(named(MAX_SCHEDULES)).graph.schedules) == MAX_SCHEDULES
    assert told(named(MAX_SCHEDULES + 1)) == [f"31:1: {MAX_SCHEDULES + 1} schedules; at most {MAX_SCHEDULES} are taken"]


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "croniter", None)
    assert told(HEAD + SIMPLE) == ["31:1: schedules need the package croniter (pip install 'inference-mesh[batch]')"]
    assert told(GOOD) == []


def test_compiling_a_file_without_schedules_loads_nothing_for_them() -> None:
    program = "import sys, mesh.topology; print([name for name in ('croniter', 'nats') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
