"""`mesh batch schedules`, of a gateway and of a file."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.cli.batch_schedules import add, json_of_schedule, tables
from mesh.cli.terminal import show
from mesh.errors import InvalidInput, NotFound, RequestError, Unavailable
from mesh.jobs.schedules.firing import Firing, FiringState, Skip
from mesh.jobs.schedules.schedule import ScheduleTold
from mesh.jobs.schedules.service import answer_schedules, ask_schedules
from mesh.testing import ManualClock
from mesh.transports import ENGINES, Limits
from mesh.transports.servicers import end_with
from mesh.v1 import batch_service_pb2
from tests.unit.jobs.scheduled import Batches, Store, hourly, serving

HOUR = 3600
TOLD = ScheduleTold(
    name="nightly",
    cron="30 2 * * *",
    timezone="Europe/Berlin",
    window_s=4.0 * HOUR,
    overlap="wait",
    catch_up="all",
    next_times=(1711848600.0, 1711935000.0),
    current=Firing(
        due=1711762200, state=FiringState.RUNNING, claim_time=1711762200.5, batch="b3", ending="its window ended"
    ),
    waiting=(1711765800,),
    runs=(
        Firing(due=1711675800, state=FiringState.DONE, claim_time=1711675800.5, batch="b2", end_time=1711676100.5),
        Firing(
            due=1711503000,
            state=FiringState.FAILED,
            claim_time=1711503001.0,
            end_time=1711503002.0,
            error="no such file",
        ),
    ),
    skips=(Skip(1711589400, "missed"), Skip(1711416600, "missed"), Skip(1711330200, "missed", and_before=True)),
)


def asked(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    parsed = parser.parse_args(["schedules", *arguments])
    return parsed.run(parsed)


def test_the_tables_tell_times_in_the_zone_of_each_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    show(*tables([TOLD]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "schedule cron next now",
        "nightly 30 2 * * * 2024-03-31 03:30 CEST batch b3, due 2024-03-30 02:30 CET, ending: its window ended; 1 wait",
        "",
        "schedule due ended in batch after because",
        "nightly 2024-03-29 02:30 CET done b2 300s",
        "nightly 2024-03-28 02:30 CET skipped missed",
        "nightly 2024-03-27 02:30 CET failed 1s no such file",
        "nightly 2024-03-26 02:30 CET skipped missed",
        "nightly 2024-03-25 02:30 CET skipped missed, and before",
    ]


def test_due_times_left_out_for_one_reason_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    skips = tuple(Skip(hour * HOUR, "the one before was not over") for hour in (9, 8, 7))
    show(
        *tables([ScheduleTold(name="n", cron="0 * * * *", timezone="UTC", overlap="skip", catch_up="all", skips=skips)])
    )
    assert "1970-01-01 09:00 UTC and 2 before" in capsys.readouterr().out


def test_json_tells_everything() -> None:
    found = json.loads(json.dumps(json_of_schedule(TOLD)))
    assert found["next"] == ["2024-03-31T03:30:00+02:00", "2024-04-01T03:30:00+02:00"]
    assert found["current"] == {
        "due": "2024-03-30T02:30:00+01:00",
        "state": "running",
        "claimed": "2024-03-30T02:30:00.500000+01:00",
        "batch": "b3",
        "ending": "its window ended",
    }
    assert [one["state"] for one in found["runs"]] == ["done", "failed"]
    assert found["skips"][-1] == {"due": "2024-03-25T02:30:00+01:00", "reason": "missed", "and_before": True}


FILE = """\
mesh: v1
name: digits
inputs: {image: {datatype: FP32, shape: [-1, 64]}}
nodes:
  scale: {uses: "nodes.tabular:Scale", with: {divide_by: 16}, inputs: {x: image}}
outputs: {x: scale.x}
"""
SCHEDULES = """\
jobs: {}
schedules:
  nightly: {cron: "30 2 * * *", batch: {input: in, output: "out/{date}"}}
"""


def test_of_a_file_the_times_ahead_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text(FILE + SCHEDULES)
    assert asked(str(file), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [due[11:] for due in found["next"]] == ["02:30:00+00:00"] * 3
    assert found["output"] == f"{tmp_path}/out/{{date}}"
    assert (found["current"], found["runs"]) == (None, [])


def test_a_file_without_schedules_says_so(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(FILE)
    with pytest.raises(NotFound, match="has no schedules"):
        asked(str(tmp_path / "digits.yaml"))


def test_history_has_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("0", "101", "many"):
        with pytest.raises(SystemExit):
            asked("grpc://127.0.0.1:1", "--history", wrong)
        assert "no number from 1 to 100" in capsys.readouterr().err


# ===== Of a gateway =====


def gateway_handlers(store: Store, now: float) -> grpc.GenericRpcHandler:
    """Tells of schedules as a gateway does."""

    async def tell(request: Any, call: Any) -> Any:
        try:
            return await answer_schedules(request, [hourly()], store, now)
        except RequestError as error:
            return await end_with(error, "", call)

    handler = grpc.unary_unary_rpc_method_handler(
        tell,
        request_deserializer=batch_service_pb2.ListSchedulesRequest.FromString,
        response_serializer=batch_service_pb2.ListSchedulesResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("mesh.v1.BatchService", {"ListSchedules": handler})


@contextmanager
def gateway(folder: Path, store: Store, now: float, *, batches: bool = True) -> Generator[str]:
    """A gateway in a thread of its own; gives its address."""
    address, up = f"unix:{folder}/gateway.sock", threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        server = ENGINES["wire"]().server(Limits())
        if batches:
            server.add_generic_rpc_handlers((gateway_handlers(store, now),))
        server.add_insecure_port(address)
        await server.start()
        up.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(30.0)
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def worked(store: Store) -> float:
    """Fill a store with what two due times leave there; gives the time."""
    batches, clock = Batches(), ManualClock(now=0.5)
    async with serving(store, batches, clock, hourly()):
        await clock.advance(HOUR + 10.0)
        batches.end()
        await clock.advance(1.0 * HOUR)
    return clock.now()


def test_a_gateway_tells_what_its_workers_have_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store()
    now = asyncio.run(worked(store))
    with gateway(tmp_path, store, now) as address:
        assert asked(address, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["next"][0] == "1970-01-01T03:00:00+00:00"
    assert found["current"]["batch"] == "batch-2"
    assert [(one["due"], one["state"]) for one in found["runs"]] == [("1970-01-01T01:00:00+00:00", "done")]


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_a_gateway_is_asked_over_either_engine(engine: str, tmp_path: Path) -> None:
    store = Store()
    now = await worked(store)
    with gateway(tmp_path, store, now) as address:
        (found,) = await ask_schedules(address, history=1, engine=engine)
        with pytest.raises(InvalidInput, match="history has to be from 1 to 100"):
            await ask_schedules(address, history=101, engine=engine)
        store.down = True
        with pytest.raises(Unavailable, match="the store cannot be reached"):
            await ask_schedules(address, engine=engine)
    assert [run.due for run in found.runs] == [HOUR]


def test_a_mesh_without_batches_says_so(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, Store(), 0.0, batches=False) as address,
        pytest.raises(NotFound, match="takes no batches"),
    ):
        asked(address)
