from __future__ import annotations

import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from mesh.cli.addresses import LONGEST_SOCKET_PATH, addresses_of, check_free
from mesh.cli.launching import choose, plan_launches
from mesh.errors import PlacementError
from mesh.layers import LAYERS
from mesh.runtime.launch import Launch
from mesh.topology import Plan, compile_text

FRONT = "grpc://127.0.0.1:8001"
FOLDER = Path("/tmp/mesh-x")
TEXT = """
mesh: v1
name: three
inputs:
  text: {datatype: BYTES, shape: [-1]}
nodes:
  a: {uses: "nodes.text:Lowercase", inputs: {text: text}}
  b: {uses: "nodes.text:Lowercase", inputs: {text: a.text}}
outputs: {text: b.text}
placements:
  local:
    front: {nodes: []}
    first: {nodes: [a], replicas: 2}
    second: {nodes: [b]}
  hosts:
    front: {nodes: [], address: "grpc://10.0.0.1:7000"}
    first: {nodes: [a], address: "grpc://10.0.0.2:7001", replicas: 3}
    second: {nodes: [b], address: "unix:/run/second.sock"}
  mixed:
    front: {nodes: [a]}
    second: {nodes: [b], address: "grpc://10.0.0.2:7001"}
"""


def plan(placement: str) -> Plan:
    return compile_text(TEXT, LAYERS).plan(placement)


def test_workers_without_an_address_get_a_socket_each() -> None:
    found = plan("local")
    assert addresses_of(found, found.workers, FOLDER, FRONT) == {
        "front": (FRONT,),
        "first": ("unix:/tmp/mesh-x/first-0.sock", "unix:/tmp/mesh-x/first-1.sock"),
        "second": ("unix:/tmp/mesh-x/second-0.sock",),
    }


@pytest.mark.parametrize("here", [["front"], ["first", "second"], ["front", "first", "second"]])
def test_on_every_host_the_addresses_of_the_file_are_the_same_ones(here: list[str]) -> None:
    found = plan("hosts")
    assert addresses_of(found, [found.worker(name) for name in here], FOLDER, "grpc://10.0.0.1:7000") == {
        "front": ("grpc://10.0.0.1:7000",),
        "first": ("grpc://10.0.0.2:7001", "grpc://10.0.0.2:7002", "grpc://10.0.0.2:7003"),
        "second": ("unix:/run/second.sock",),
    }


@pytest.mark.parametrize(("here", "named"), [(["front", "first"], "second"), (["first"], "first")])
def test_a_worker_that_the_gateway_could_not_call_is_refused(here: list[str], named: str) -> None:
    found = plan("local")
    with pytest.raises(PlacementError, match=f"worker {named} has no address in placement local"):
        addresses_of(found, [found.worker(name) for name in here], FOLDER, FRONT)


def test_a_worker_of_another_host_needs_no_address_of_this_mesh() -> None:
    found = plan("mixed")
    addresses = addresses_of(found, [found.worker("second")], FOLDER, FRONT)
    assert addresses["second"] == ("grpc://10.0.0.2:7001",)


def test_a_folder_with_a_name_too_long_for_sockets_is_refused() -> None:
    found = plan("local")
    folder = Path("/tmp") / ("x" * LONGEST_SOCKET_PATH)
    with pytest.raises(PlacementError, match="set TMPDIR to a folder with a shorter name"):
        addresses_of(found, found.workers, folder, FRONT)


def test_launches_start_the_gateway_last_and_after_all_others(tmp_path: Path) -> None:
    found = plan("local")
    launched = plan_launches(
        found, choose(found, None), tmp_path, listen=FRONT, file_folder=Path("/x"), grace_s=1.0, engine="wire"
    )
    assert [(one.process.name, one.process.after, one.listen) for one in launched] == [
        ("first-0", (), f"unix:{tmp_path}/first-0.sock"),
        ("first-1", (), f"unix:{tmp_path}/first-1.sock"),
        ("second", (), f"unix:{tmp_path}/second-0.sock"),
        ("front", ("first-0", "first-1", "second"), FRONT),
    ]
    for one in launched:
        launch = Launch.read(Path(one.process.argv[-1]))
        assert launch.plan == found
        assert (launch.worker, launch.listen, launch.folder, launch.grace_s) == (one.worker, (one.listen,), "/x", 1.0)
        assert launch.ready_file == str(one.ready_file)


def test_the_gateways_address_is_that_of_the_command_line_before_that_of_the_file(tmp_path: Path) -> None:
    found = plan("hosts")
    front = choose(found, "front")
    for listen, expected in ((None, "grpc://10.0.0.1:7000"), (FRONT, FRONT)):
        (one,) = plan_launches(found, front, tmp_path, listen=listen, file_folder=tmp_path, grace_s=1.0, engine="wire")
        assert one.listen == expected


def test_an_address_for_a_gateway_that_is_not_launched_here_is_refused(tmp_path: Path) -> None:
    found = plan("hosts")
    with pytest.raises(PlacementError, match="--listen is for the gateway front"):
        plan_launches(
            found, choose(found, "first"), tmp_path, listen=FRONT, file_folder=tmp_path, grace_s=1.0, engine="wire"
        )


# ===== Taken ports =====


@pytest.fixture
def taken() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_told_by_its_address(taken: int) -> None:
    with pytest.raises(PlacementError, match=rf"grpc://127\.0\.0\.1:{taken} cannot be bound: it is in use"):
        check_free([f"grpc://127.0.0.1:{taken}"])


def test_a_free_port_is_free_and_stays_so(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for _ in range(2):
        check_free([f"grpc://127.0.0.1:{port}", f"grpc://localhost:{port}", "grpc://127.0.0.1:0", "unix:/nowhere/x"])


def test_a_host_that_is_none_of_this_machine_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"grpc://192\.0\.2\.1:7001 cannot be bound: "):
        check_free(["grpc://192.0.2.1:7001"])
