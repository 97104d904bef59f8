"""What is kept of schedules, and what is told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import SetupError
from mesh.jobs.schedules.firing import FiringState, Phase, Record
from mesh.jobs.schedules.messages import decode_record, decode_told, encode_record, encode_told
from mesh.jobs.schedules.schedule import schedules_of, told
from mesh.jobs.schedules.scheduler import tell_schedules
from mesh.layers import LAYERS
from mesh.testing import ManualClock
from mesh.topology import compile_file
from mesh.v1.batch_service_pb2 import Schedule as ScheduleMessage
from tests.unit.jobs.scheduled import BATCH, HOUR, Batches, Store, hourly, record_of, serving


async def test_a_record_and_what_is_told_of_it_come_back_as_they_were() -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    schedule = hourly(window_s=5400.0)
    async with serving(store, batches, clock, schedule):
        await clock.advance(HOUR + 10.0)
        batches.end(Phase.FAILED)
        await clock.advance(3.0 * HOUR)
        record = record_of(store)
    assert record.current is not None
    assert record.runs
    assert record.skips
    assert decode_record(encode_record(record)) == record
    claimed = replace(record.current, state=FiringState.BEGINNING, batch="", spec=schedule.spec(0).SerializeToString())
    claimed_record = replace(record, current=claimed)
    assert decode_record(encode_record(claimed_record)) == claimed_record
    (found,) = await tell_schedules([schedule], store, clock.now())
    assert decode_told(ScheduleMessage.FromString(encode_told(found).SerializeToString())) == found


async def test_the_next_times_are_told_of_a_schedule_that_nobody_has_looked_at() -> None:
    (found,) = await tell_schedules([hourly()], None, 0.5)
    assert found.next_times == (1.0 * HOUR, 2.0 * HOUR, 3.0 * HOUR)
    assert (found.current, found.runs, found.skips) == (None, (), ())
    assert (found.spec.input, found.spec.output) == (BATCH.input, BATCH.output)


def test_the_next_times_of_a_clock_that_was_put_back_are_those_that_will_fire() -> None:
    record = Record(cron="0 * * * *", timezone="UTC", handled=5 * HOUR)
    assert told(hourly(), record, 1.0 * HOUR, 10).next_times[0] == 6 * HOUR
    other = replace(record, cron="30 * * * *")
    assert told(hourly(), other, 1.0 * HOUR, 10).next_times[0] == 2 * HOUR


async def test_no_more_is_told_than_was_asked_for() -> None:
    store, batches, clock = Store(), Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly()):
        for _ in range(4):
            await clock.advance(1.0 * HOUR)
            batches.end()
            await clock.advance(60.0)
    (found,) = await tell_schedules([hourly()], store, clock.now(), 2)
    assert [run.due // HOUR for run in found.runs] == [4, 3]


FILE = """\
mesh: v1
name: digits
inputs: {image: {datatype: FP32, shape: [-1, 64]}}
nodes:
  scale: {uses: "nodes.tabular:Scale", with: {divide_by: 16}, inputs: {x: image}}
outputs: {x: scale.x}
jobs: {}
schedules:
  hourly:
    cron: "0 * * * *"
    timezone: Europe/Berlin
    window: 30m
    overlap: wait
    catch_up: all
    batch:
      input: in/{schedule}
      columns: {image: pixels}
      output: out/{date}/{time}
      on_error: {stop_after: 7}
      parameters: {who: night, deep: true}
"""


def test_a_schedule_of_a_file_does_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(FILE)
    (schedule,) = schedules_of(compile_file(tmp_path / "digits.yaml", LAYERS).graph)
    rules = schedule.rules
    assert (rules.times.cron, rules.times.timezone) == ("0 * * * *", "Europe/Berlin")
    assert (rules.window_s, rules.overlap, rules.catch_up) == (1800.0, "wait", "all")
    spec = schedule.spec(HOUR)
    assert spec.graph == "digits"
    assert (spec.input, spec.output) == (f"{tmp_path}/in/hourly", f"{tmp_path}/out/1970-01-01/0200")
    assert dict(spec.columns) == {"image": "pixels"}
    assert spec.on_error.stop_after == 7
    assert (spec.parameters["who"].string_value, spec.parameters["deep"].bool_value) == ("night", True)


def test_a_schedule_that_this_machine_cannot_keep_is_a_mistake_in_the_setup(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(FILE)
    graph = compile_file(tmp_path / "digits.yaml", LAYERS).graph
    elsewhere = replace(graph, schedules=(replace(graph.schedules[0], timezone="Mars/Olympus"),))
    with pytest.raises(SetupError, match="schedule hourly: 'Mars/Olympus' is no time zone"):
        schedules_of(elsewhere)
