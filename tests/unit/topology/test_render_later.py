"""Jobs and schedules in pictures, in JSON and in words."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from mesh.topology.render import later_of, mermaid, svg, to_json
from tests.unit.topology.given import GOOD, compiled

JOBS = f"{GOOD}jobs: {{workers: 2}}\n"
SCHEDULED = f"""\
{GOOD}jobs: {{store: ["nats://a", "nats://b"], replicas: 3}}
schedules:
  nightly: {{cron: "30 2 * * *", timezone: Europe/Berlin, window: 4h, batch: {{input: in, output: "<out>/{{date}}"}}}}
  hourly: {{cron: "@hourly", batch: {{input: in, output: "out/{{date}}-{{time}}"}}}}
"""
LINES = [
    "jobs: 1 worker with 4 at once, kept at nats://a, nats://b, 3 times",
    "nightly: a batch at 30 2 * * * (Europe/Berlin), for at most 4h",
    "hourly: a batch at @hourly (UTC)",
]


def test_a_graph_without_jobs_has_nothing_to_tell() -> None:
    plan = compiled(GOOD).plan("fused")
    assert later_of(plan.graph) == []
    assert "jobs" not in mermaid(plan)
    assert {"jobs", "schedules"}.isdisjoint(to_json(plan))


def test_jobs_and_schedules_are_told_in_a_line_each() -> None:
    assert later_of(compiled(JOBS).graph) == ["jobs: 2 workers with 4 at once, kept in a store of the mesh's own"]
    assert later_of(compiled(SCHEDULED).graph) == LINES


def test_a_flowchart_has_them_beside_the_flow() -> None:
    (line,) = [line for line in mermaid(compiled(SCHEDULED).plan("two")).splitlines() if "later" in line]
    assert line == (
        '  later[("jobs: 1 worker with 4 at once, kept at nats://a, nats://b, 3 times'
        "<br>nightly: a batch at 30 2 #42; #42; #42; (Europe/Berlin), for at most 4h"
        '<br>hourly: a batch at #64;hourly (UTC)")]'
    )


def test_a_picture_has_them_in_its_heading_and_in_its_description() -> None:
    text = svg(compiled(SCHEDULED).plan("fused"))
    assert "placement fused · 4 nodes · 1 worker · 1 worker on jobs · 2 schedules" in text
    ElementTree.fromstring(text)
    assert LINES[1] in text


def test_json_has_what_is_nobodys_secret() -> None:
    told = json.loads(json.dumps(to_json(compiled(SCHEDULED).plan("fused"))))
    assert told["jobs"]["store"] == ["nats://a", "nats://b"]
    assert told["jobs"]["replicas"] == 3
    assert [one["name"] for one in told["schedules"]] == ["nightly", "hourly"]
    assert told["schedules"][0]["window_s"] == 4 * 3600
    assert to_json(compiled(JOBS).plan("fused"))["jobs"]["store"] == "embedded"
