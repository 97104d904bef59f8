"""A corpus of broken topologies, made from the good ones: each is refused in its place, or is a right topology still.

Nothing else may come of a file: no traceback, no other exception, no word of the libraries beneath.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mesh.cli.main import main
from mesh.errors import Problem, TopologyError
from mesh.layers import LAYERS
from mesh.topology import Compiled, compile_file, compile_text, json_schema
from mesh.topology.source import read
from tests.harness.meshes import TOPOLOGIES
from tests.topologies.mutants import mutants, some
from tests.unit.topology.given import FOLDER, GOOD, NODES

FILES = {path.stem: path for path in sorted(TOPOLOGIES.glob("*.yaml"))}
MODELS = TOPOLOGIES.parent / "models"
MANY, FEW = 20, 4
"""Mutants of a topology; few of one with a model of megabytes, which takes a quarter of a second to read."""
LARGE_BYTES = 5_000_000
PLAIN = GOOD.replace(
    "name: digits\n",
    "name: digits\ndescription: everything that a file may say\nmodels: .\nengine: wire\n"
    "limits: {max_message: 1MiB, max_in_flight: 7, default_timeout: 1m}\n",
)
FLOWING = f"""\
mesh: v1
name: flowing
inputs:
  image: {{datatype: FP32, shape: [-1, 64]}}
nodes:
  first:
    uses: {NODES}:Model
    inputs: {{X: image}}
  second:
    uses: {NODES}:Model
    inputs: {{X: image}}
    when: max(first.p) < 0.9 and first.label in [1, 2]
  left:
    uses: {NODES}:Model
    inputs: {{X: image}}
    split: {{group: halves, weight: 50, by: parameters.user}}
  right:
    uses: {NODES}:Model
    inputs: {{X: image}}
    split: {{group: halves, weight: 50}}
  tried:
    uses: {NODES}:Model
    inputs: {{X: image}}
    shadow: first
  lines:
    uses: {NODES}:Lines
    inputs: {{x: image}}
  read:
    uses: {NODES}:Model
    inputs: {{X: lines.x}}
  text:
    uses: {NODES}:Collect
    inputs: [read]
  either:
    uses: {NODES}:AnyOf
    inputs: [left, right]
  answer:
    uses: {NODES}:AnyOf
    inputs: [second, first, either]
    join: {{quorum: 1, required: [first], deadline: 1s, timeouts: {{second: 5ms}}}}
outputs: {{label: answer.label, text: text.label}}
"""
LATER = f"""\
mesh: v1
name: later
inputs:
  image: {{datatype: FP32, shape: [-1, 64]}}
nodes:
  first: {{uses: "{NODES}:Model", inputs: {{X: image}}}}
outputs: {{label: first.label}}
jobs:
  store: ["nats://10.0.0.1:4222", "tls://nats.example.com"]
  credentials: given.py
  tls: {{ca: given.py, cert: given.py, key: given.py}}
  replicas: 3
  folder: data
  payloads: s3://bucket/prefix
  workers: 2
  concurrency: 8
  lease: 5s
  backoff: {{first: 10ms, most: 1s}}
  dead_letter: {{ttl: 7d, max_bytes: 64MiB}}
  max_queued: 1000
  callbacks: {{allow: ["localhost:80", "*.a.b", "[::1]:443", 10.0.0.1], key_file: given.py, attempts: 2, timeout: 1s}}
  batches: {{inputs: [.], outputs: [out/deep]}}
schedules:
  nightly:
    cron: "*/30 2 * * mon-fri"
    timezone: Europe/Berlin
    window: 4h
    overlap: wait
    catch_up: all
    batch:
      input: data/{{date}}.parquet
      input_format: parquet
      columns: {{image: pixels}}
      output: "/srv/{{schedule}}/{{date}}-{{time}}"
      keep: [id]
      outputs: [label]
      shard_rows: 1000
      on_error: {{stop_after: 3}}
      parameters: {{text: a, whole: 1, part: 1.5, truth: true}}
  hourly: {{cron: "@hourly", batch: {{input: in, output: "out/{{date}}-{{time}}", on_error: stop}}}}
"""
RICH = {"plain": PLAIN, "flowing": FLOWING, "later": LATER}
"""Topologies without models, so that many of their mutants can be looked at."""
SCHEMA = Draft202012Validator(json_schema(LAYERS))
LEAKED = re.compile(r"0x[0-9a-f]{6}|Input should|pydantic|libyaml|Traceback|object at|<class|errors\.")


def outcome(text: str, folder: Path) -> Compiled | TopologyError:
    """What becomes of a topology; held against all that is promised of it."""
    try:
        compiled = compile_text(text, LAYERS, file="broken.yaml", folder=folder)
    except TopologyError as error:
        assert_told(error, text)
        return error
    assert_sound(compiled, text)
    return compiled


def assert_told(error: TopologyError, text: str) -> None:
    """Every mistake stands at a place of the file, in one plain line."""
    lines = re.split(r"\r\n|\r|\n", text)
    assert error.problems
    assert list(error.problems) == sorted(set(error.problems))
    assert str(error) == "\n".join(map(str, error.problems))
    for problem in error.problems:
        first, *shown = str(problem).splitlines()
        assert first.startswith(f"broken.yaml:{problem.line}:{problem.column}: error: ")
        assert [line.strip() for line in shown] == [line.strip() for line in problem.shown]
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.text.strip()
        assert all(line.isprintable() for line in (first, *shown))
        assert not LEAKED.search(str(problem)), problem


def assert_sound(compiled: Compiled, text: str) -> None:
    """A right topology: typed, in the order of the flow, with a plan for each placement; its schema takes it, too."""
    graph = compiled.graph
    specs, known = graph.edge_specs, set(graph.inputs)
    for node in graph.nodes:
        assert node.edges or node.kind == "cache"
        assert known.issuperset(node.edges)
        assert set(node.takes) == set(node.inputs)
        known |= {f"{node.name}.{tensor}" for tensor in node.gives}
    assert graph.outputs
    assert specs.keys() == known
    assert known.issuperset(graph.outputs.values())
    for placement in compiled.placements:
        plan = compiled.plan(placement)
        assert sorted(name for piece in plan.partitions for name in piece.nodes) == sorted(
            node.name for node in graph.nodes if node.kind != "cache"
        )
    SCHEMA.validate(read(text, "broken.yaml").value)


def refused_of(text: str, folder: Path, most: int) -> int:
    """How many mutants are refused; fails with what was done to the first that is not treated as promised."""
    refused = 0
    for mutant in some(text, most):
        try:
            refused += isinstance(outcome(mutant.text, folder), TopologyError)
        except Exception as error:
            error.add_note(f"of the mutant: {mutant.done}")
            raise
    return refused


@pytest.mark.parametrize("name", FILES)
def test_a_broken_topology_is_refused_in_its_place_or_is_right_still(name: str) -> None:
    text = FILES[name].read_text()
    models = [MODELS / model for model in re.findall(r": (fetched/[\w.-]+)", text)]
    most = FEW if any(model.stat().st_size > LARGE_BYTES for model in models) else MANY
    assert isinstance(outcome(text, TOPOLOGIES), Compiled)
    assert refused_of(text, TOPOLOGIES, most) >= most // 2


@pytest.mark.parametrize("name", RICH)
def test_each_of_a_thousand_ways_to_break_a_topology_is_told_or_harmless(name: str) -> None:
    assert isinstance(outcome(RICH[name], FOLDER), Compiled)
    assert refused_of(RICH[name], FOLDER, 1000) > 800


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_topology_that_is_broken_several_times_over_is_told_or_harmless(data: st.DataObject) -> None:
    text = RICH[data.draw(st.sampled_from(sorted(RICH)))]
    for _ in range(data.draw(st.integers(2, 4), label="times")):
        every = list(mutants(text))
        mutant = every[data.draw(st.integers(0, len(every) - 1))] if every else None
        text = mutant.text if mutant is not None else text
    outcome(text, FOLDER)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_characters_put_anywhere_in_a_topology_are_told_or_harmless(data: st.DataObject) -> None:
    text = RICH[data.draw(st.sampled_from(sorted(RICH)))]
    for _ in range(data.draw(st.integers(1, 3), label="times")):
        begin = data.draw(st.integers(0, len(text)), label="begin")
        end = min(len(text), begin + data.draw(st.integers(0, 8), label="length"))
        new = data.draw(st.text(st.one_of(st.sampled_from(":-[]{},'\"#&*!|>%@` \n\t\\"), st.characters()), max_size=4))
        text = f"{text[:begin]}{new}{text[end:]}"
    outcome(text, FOLDER)


@given(st.text(st.sampled_from("ab5:-[]{},'\"#&*!|>%@?~. \n\t\\"), max_size=60))
def test_any_text_is_told(text: str) -> None:
    assert isinstance(outcome(text, FOLDER), TopologyError)


@given(data=st.data())
@settings(deadline=None)
def test_bytes_put_anywhere_in_a_file_are_told_or_harmless(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "broken.yaml"
    good = PLAIN.encode()
    at = data.draw(st.integers(0, len(good)), label="at")
    file.write_bytes(good[:at] + data.draw(st.binary(min_size=1, max_size=4), label="bytes") + good[at:])
    told: tuple[Problem, ...] = ()
    try:
        compile_file(file, LAYERS)
    except TopologyError as error:
        told = error.problems
    place = re.compile(rf"{re.escape(str(file))}:\d+:\d+: error: .")
    assert all(place.match(str(problem)) for problem in told)


def test_the_command_checks_a_folder_of_broken_files_and_starts_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: list[str] = []
    for index, mutant in enumerate(some(PLAIN, 40)):
        file = tmp_path / f"t{index}.yaml"
        file.write_bytes(mutant.text.encode(errors="surrogatepass"))
        files.append(str(file))
    assert main(["check", *files]) == 2
    told = capsys.readouterr()
    *lines, last = told.err.splitlines()
    assert last == f"{len(lines)} mistakes"
    place = re.compile(rf"{re.escape(str(tmp_path))}/t\d+\.yaml:\d+:\d+: error: .")
    assert all(place.match(line) for line in lines)
    wrong = {line.partition(":")[0] for line in lines}
    right = {line.partition(":")[0] for line in told.out.splitlines()}
    assert wrong | right == set(files)
    assert wrong.isdisjoint(right)
    for file in sorted(wrong)[:5]:
        assert main(["up", file]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.splitlines() == [line for line in lines if line.startswith(f"{file}:")]
