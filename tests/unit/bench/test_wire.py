"""The benchmark of the wire measures what it says: its load client against real servers, its ratios, its tables."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report import TABLES
from bench.wire.child import Caller, Server
from bench.wire.engines import ENGINES
from bench.wire.load import METHODS, LoadClient
from bench.wire.rounds import Point, Sample, in_turn

SHORT_S = 0.01


@pytest.mark.processes
@pytest.mark.parametrize("engine", ["wire", "grpcio"])
def test_the_load_client_gets_its_answers_from_any_server(engine: str) -> None:
    with Server(engine) as server:
        before = server.cpu()
        for method, least in METHODS.items():
            for connections, in_flight in ((1, 1), (1, 8), (4, 1)):
                client = LoadClient(server.port, method, connections=connections, in_flight=in_flight)
                for _ in range(2):
                    units, seconds = client.drive(SHORT_S)
                    assert units >= connections * in_flight * max(least, 1)
                    assert seconds > 0
                client.close()
        assert server.cpu() > before


@pytest.mark.processes
def test_a_caller_counts_its_calls_and_both_sides_time() -> None:
    with Server("wire") as server, Caller("wire", server) as caller:
        sample = caller.sample(seconds=SHORT_S, in_flight=3)
    assert sample.units >= 3
    assert min(sample.cpu, sample.server_cpu, sample.seconds) > 0


def samples(*micros: float) -> list[Sample]:
    return [Sample(units=10, seconds=1.0, cpu=one * 1e-5) for one in micros]


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def sampler(name: str) -> Any:
        def sample() -> Sample:
            order.append(name)
            return Sample(units=len(order), seconds=1.0, cpu=1.0)

        return sample

    found = in_turn({"a": sampler("a"), "b": sampler("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [one.units for one in found["a"]] == [3, 5]


def test_ratios_are_taken_within_a_round_to_the_better_grpcio() -> None:
    told = Point(
        samples={
            "wire": samples(1, 2, 4),
            "grpcio": samples(100, 100, 100),
            "grpcio on uvloop": samples(10, 40, 20),
            "pygrpc-native": samples(2, 2, 2),
        },
        by=lambda sample: sample.cpu_us,
        target=11,
    ).to_json()
    assert told["us"] == {"wire": 2.0, "grpcio": 100.0, "grpcio on uvloop": 20.0, "pygrpc-native": 2.0}
    assert (told["grpcio"], told["ratio"], told["ratio_min"], told["ratio_max"]) == (
        "grpcio on uvloop",
        10.0,
        5.0,
        20.0,
    )
    assert (told["ratio_to_native"], told["met"]) == (1.0, False)


def told(native: str, *names: str) -> dict[str, Any]:
    point = Point(samples={name: samples(2, 2) for name in names}, by=lambda sample: sample.cpu_us, target=8).to_json()
    parts = ("server", "client", "client_of_pair", "both_of_pair", "pair", "large")
    return {"rounds": 2, "native": native, "large_aim": 2} | {part: {"some load": point} for part in parts}


def test_the_page_flags_what_was_missed_and_says_who_was_not_there() -> None:
    text = TABLES["wire"](told("not installed here", "wire", "grpcio"))
    assert "8: **missed**" in text
    assert "server, some load (1.0 of 8)" in text
    assert "pygrpc-native: not installed here." in text
    assert "h2load is not installed here." in text


def test_the_page_shows_every_contender() -> None:
    text = TABLES["wire"](told("0.5.0", *ENGINES))
    assert "| load | wire | grpcio |" in text
    assert text.count("| some load |") == 6
