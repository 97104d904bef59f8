"""What is started for a file with jobs: which processes, in which order, told what; and what is refused before."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli import launching
from mesh.cli.launching import Launched, choose, hold_data, plan_launches
from mesh.errors import PlacementError, SetupError
from mesh.jobs.server.embedded import OwnStore, locked
from mesh.layers import LAYERS
from mesh.runtime.launch import JOBS, Launch
from mesh.topology import GraphJobs, Plan, compile_text

TEXT = """
mesh: v1
name: two
inputs:
  text: {datatype: BYTES, shape: [-1]}
nodes:
  a: {uses: "nodes.text:Lowercase", inputs: {text: text}}
  b: {uses: "nodes.text:Lowercase", inputs: {text: a.text}}
outputs: {text: b.text}
placements:
  local:
    front: {nodes: [a]}
    second: {nodes: [b], replicas: 2}
  hosts:
    front: {nodes: [a], address: "grpc://10.0.0.1:7000"}
    second: {nodes: [b], address: "grpc://10.0.0.2:7000"}
"""
EMBEDDED = f"{TEXT}jobs: {{workers: 2, folder: data}}\n"
ELSEWHERE = f"{TEXT}jobs: {{store: ['nats://10.0.0.9'], folder: data}}\n"
STORE = OwnStore(name="n", port=20_000, argv=("nats-server", "-c", "x"), credentials=Path("/x"))


def plan(text: str, folder: Path, placement: str = "local") -> Plan:
    return compile_text(text, LAYERS, folder=folder).plan(placement)


def jobs_of(told: Plan) -> GraphJobs:
    assert told.graph.jobs is not None
    return told.graph.jobs


@pytest.fixture
def lifetime() -> Generator[ExitStack]:
    with ExitStack() as made:
        yield made


def launches(found: Plan, names: str | None, folder: Path, own: OwnStore | None = STORE) -> dict[str, Launched]:
    made = plan_launches(
        found,
        choose(found, names),
        folder,
        listen=None,
        file_folder=Path("/x"),
        grace_s=1.0,
        engine="wire",
        own=own,
    )
    return {one.process.name: one for one in made}


def launch(one: Launched) -> Launch:
    return Launch.read(Path(one.process.argv[-1]))


def test_the_store_comes_first_then_nodes_then_workers_on_jobs_then_the_gateway(tmp_path: Path) -> None:
    made = launches(plan(EMBEDDED, tmp_path), None, tmp_path)
    nodes = ("nats-server", "second-0", "second-1")
    assert {name: one.process.after for name, one in made.items()} == {
        "nats-server": (),
        "second-0": (),
        "second-1": (),
        "jobs-0": nodes,
        "jobs-1": nodes,
        "front": (*nodes, "jobs-0", "jobs-1"),
    }
    assert list(made) == ["nats-server", "second-0", "second-1", "jobs-0", "jobs-1", "front"]
    assert made["nats-server"].process.argv == STORE.argv
    assert made["nats-server"].ready_file is None


def test_a_worker_on_jobs_has_the_gateways_share_and_a_door_and_a_name_of_its_own(tmp_path: Path) -> None:
    made = launches(plan(EMBEDDED, tmp_path), None, tmp_path)
    for index in range(2):
        told = launch(made[f"jobs-{index}"])
        assert (told.role, told.called, told.worker) == (JOBS, f"jobs-{index}", "front")
        assert told.listen == (f"unix:{tmp_path}/jobs-{index}.sock",)
        assert told.dial["second"] == (f"unix:{tmp_path}/second-0.sock", f"unix:{tmp_path}/second-1.sock")
        assert "jobs" not in told.dial, "it does not ask itself"
    others = [launch(made[name]) for name in ("front", "second-0")]
    assert [(one.role, one.called, one.worker) for one in others] == [("", "", "front"), ("", "", "second")]


def test_the_gateway_asks_workers_on_jobs_how_they_are(tmp_path: Path) -> None:
    made = launches(plan(EMBEDDED, tmp_path), None, tmp_path)
    assert launch(made["front"]).dial["jobs"] == tuple(f"unix:{tmp_path}/jobs-{index}.sock" for index in range(2))


@pytest.mark.parametrize(
    ("names", "started"),
    [
        ("front,second", ["nats-server", "second-0", "second-1", "front"]),
        ("jobs, second", ["nats-server", "second-0", "second-1", "jobs-0", "jobs-1"]),
    ],
)
def test_workers_on_jobs_are_chosen_by_one_name(names: str, started: list[str], tmp_path: Path) -> None:
    assert list(launches(plan(EMBEDDED, tmp_path), names, tmp_path)) == started


def test_workers_on_jobs_may_run_on_a_host_of_their_own(tmp_path: Path) -> None:
    found = plan(ELSEWHERE, tmp_path, "hosts")
    (only,) = launches(found, "jobs", tmp_path, own=None).values()
    assert launch(only).dial["second"] == ("grpc://10.0.0.2:7000",)


def test_nodes_that_nobody_here_could_call_are_refused(tmp_path: Path) -> None:
    for names in ("jobs", "front,jobs", "second"):
        with pytest.raises(PlacementError, match="worker second has no address in placement local"):
            launches(plan(EMBEDDED, tmp_path), names, tmp_path)


def test_a_file_without_jobs_has_no_workers_on_them(tmp_path: Path) -> None:
    found = plan(TEXT, tmp_path)
    assert list(launches(found, None, tmp_path, own=None)) == ["second-0", "second-1", "front"]
    with pytest.raises(PlacementError, match="has no worker 'jobs'"):
        choose(found, "front,jobs")


def test_a_store_of_our_own_is_prepared_and_its_folder_is_ours(tmp_path: Path, lifetime: ExitStack) -> None:
    found = plan(EMBEDDED, tmp_path)
    told, own = hold_data(found, choose(found, None), None, lifetime)
    assert own is not None
    jobs = jobs_of(told)
    assert (jobs.folder, jobs.servers) == (str(tmp_path / "data"), (own.url,))
    assert Path(jobs.credentials).read_text().startswith("mesh:")
    assert stat.S_IMODE(os.stat(jobs.credentials).st_mode) == 0o600
    assert told == replace(found, graph=replace(found.graph, jobs=jobs))
    with pytest.raises(PlacementError, match="is used by another mesh"), locked(tmp_path / "data"):
        pass


def test_the_command_lines_folder_goes_before_that_of_the_file(tmp_path: Path, lifetime: ExitStack) -> None:
    found = plan(EMBEDDED, tmp_path)
    told, _ = hold_data(found, choose(found, None), tmp_path / "other", lifetime)
    assert jobs_of(told).folder == str(tmp_path / "other")
    assert not (tmp_path / "data").exists()


def test_for_a_store_elsewhere_nothing_is_started(tmp_path: Path, lifetime: ExitStack) -> None:
    found = plan(ELSEWHERE, tmp_path)
    assert hold_data(found, choose(found, None), None, lifetime) == (found, None)
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_has_nothing_to_do_with_jobs_starts_no_store(tmp_path: Path, lifetime: ExitStack) -> None:
    found = plan(EMBEDDED, tmp_path, "hosts")
    assert hold_data(found, choose(found, "second"), None, lifetime) == (found, None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_jobs_to_keep_in_it_is_refused(tmp_path: Path, lifetime: ExitStack) -> None:
    found = plan(TEXT, tmp_path)
    assert hold_data(found, choose(found, None), None, lifetime) == (found, None)
    with pytest.raises(SetupError, match="--data is for jobs, and <text> has none"):
        hold_data(found, choose(found, None), tmp_path, lifetime)


def test_what_is_wrong_with_files_of_jobs_is_told_before_anything_starts(
    tmp_path: Path, lifetime: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("no key!\n")
    text = f"{TEXT}jobs: {{callbacks: {{allow: [a], key_file: keys}}}}\n"
    found = plan(text, tmp_path)
    with pytest.raises(SetupError, match="keys:1: a key for callbacks is written in base64"):
        hold_data(found, choose(found, None), None, lifetime)
    (tmp_path / "credentials").write_text("nonsense\n")
    text = f"{TEXT}jobs: {{store: ['nats://a'], credentials: credentials}}\n"
    found = plan(text, tmp_path)
    with pytest.raises(SetupError, match="credentials: neither user:password in one line"):
        hold_data(found, choose(found, None), None, lifetime)

    def missing(_: GraphJobs) -> None:
        raise SetupError("not installed")

    monkeypatch.setattr(launching, "check_installed", missing)
    with pytest.raises(SetupError, match="not installed"):
        hold_data(found, choose(found, None), None, lifetime)
