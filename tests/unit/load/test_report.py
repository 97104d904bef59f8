from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from mesh.context import NodeTiming
from mesh.errors import Overloaded
from mesh.load import LoadPlan, Report, render
from mesh.load.measure import Recorder

PLAN = LoadPlan(mode="constant", rate_per_s=500, duration_s=0.2, max_in_flight=256)


def report_of(
    plan: LoadPlan = PLAN, *, answers: int = 90, failures: int = 10, lag_s: float = 1e-5, **more: Any
) -> Report:
    record = Recorder(max_samples=plan.max_samples, seed=0)
    for index in range(answers):
        record.send(measured=True)
        record.lag.add(lag_s)
        timings = (
            NodeTiming(node="prep", rows=1, compute_s=20e-6),
            NodeTiming(node="pred", worker="heavy", rows=1, queue_s=0.5e-3, compute_s=2e-3, wire_s=0.1e-3),
        )
        record.answer(0.0, 0.001 * (index + 1), timings, measured=True)
    for _ in range(failures):
        record.send(measured=True)
        record.fail(Overloaded("the [bold]queue[/bold] is full"), measured=True)
    fields: dict[str, Any] = {
        "plan": plan,
        "interrupted": False,
        "sending_s": 0.2,
        "answering_s": 0.25,
        "warm_up": 7,
        "sent": record.sent,
        "not_sent_full": 0,
        "not_sent_late": 0,
        "latency": record.latency.distribution() if answers else None,
        "lag": record.lag.distribution() if answers else None,
        "errors": record.errors(),
        "nodes": record.nodes(),
    }
    return Report(**(fields | more))


def text_of(report: Report, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(render(report))
    return out.getvalue()


def names(value: Any) -> Any:
    """The shape of a JSON value: field names, without the values."""
    if isinstance(value, dict):
        return {name: names(inside) for name, inside in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return names(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else None


DISTRIBUTION = dict.fromkeys(("count", "kept", "mean", "p50", "p90", "p95", "p99", "p99_9", "max"))


def test_json_has_stable_names() -> None:
    fields = report_of().to_json()
    assert fields["schema_version"] == 1
    assert names(fields) == {
        "schema_version": None,
        "plan": dict.fromkeys(LoadPlan.__dataclass_fields__),
        "interrupted": None,
        "sending_s": None,
        "answering_s": None,
        "requests": dict.fromkeys(
            ("warm_up", "sent", "answered", "failed", "unanswered", "not_sent_full", "not_sent_late")
        ),
        "rate_per_s": dict.fromkeys(("asked", "sent", "answered")),
        "latency_s": DISTRIBUTION,
        "send_lag_s": DISTRIBUTION,
        "errors": dict.fromkeys(("code", "count", "first_text")),
        "nodes": {
            "node": None,
            "workers": None,
            "rows": None,
            "queue_s": DISTRIBUTION,
            "compute_s": DISTRIBUTION,
            "wire_s": DISTRIBUTION,
        },
        "remarks": None,
    }


@pytest.mark.parametrize("answers", [0, 1, 90])
def test_json_is_strict_json_of_the_same_numbers(answers: int) -> None:
    fields = report_of(answers=answers).to_json()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_json_carries_counts_and_rates() -> None:
    fields = report_of(not_sent_full=5, sent=105).to_json()
    assert fields["requests"] == {
        "warm_up": 7,
        "sent": 105,
        "answered": 90,
        "failed": 10,
        "unanswered": 5,
        "not_sent_full": 5,
        "not_sent_late": 0,
    }
    assert fields["rate_per_s"] == {"asked": 500, "sent": 525.0, "answered": 360.0}
    assert fields["latency_s"]["p50"] == 0.045
    assert fields["nodes"][1]["compute_s"]["p99"] == 0.002


def test_tables_show_latencies_errors_and_nodes() -> None:
    text = text_of(report_of())
    lines = [line.split() for line in text.splitlines()]
    assert text.splitlines()[0] == str(PLAN)
    assert text.splitlines()[1:3] == [
        "sent 100, answered 90, failed 10, not sent 0",
        "360 answers/s (asked 500/s, sent 500/s)",
    ]
    assert ["latency", "45.5ms", "45ms", "81ms", "86ms", "90ms", "90ms", "90ms"] in lines
    assert ["RESOURCE_EXHAUSTED", "10", "10.00%", "the", "[bold]queue[/bold]", "is", "full"] in lines
    assert ["prep", "mean", "0s", "20us", "0s", "90", "90"] in lines
    assert ["pred", "mean", "500us", "2ms", "100us", "90", "90", "heavy"] in lines


def test_tables_fit_a_terminal_of_80_columns() -> None:
    text = text_of(report_of(), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_closed_loop_shows_neither_lag_nor_arrivals() -> None:
    text = text_of(report_of(LoadPlan(concurrency=4, requests=100), lag=None))
    assert "sent late" not in text
    assert "not sent" not in text
    assert "asked" not in text


def test_output_to_a_pipe_is_plain() -> None:
    assert "\x1b" not in text_of(report_of(not_sent_full=3))


def test_run_without_one_answer_is_still_shown() -> None:
    text = text_of(report_of(answers=0))
    assert "! not one request was answered" in text
    assert "RESOURCE_EXHAUSTED" in text


@pytest.mark.parametrize(
    ("report", "remark"),
    [
        (report_of(not_sent_full=12), "arrivals not sent because 256 were in flight (max_in_flight): 12"),
        (report_of(not_sent_late=2), "arrivals not sent because this tool was more than 10s late (timeout_s): 2"),
        (report_of(interrupted=True, sent=103), "interrupted; requests cancelled in flight: 3"),
        (
            report_of(LoadPlan(requests=100, max_samples=50)),
            "percentiles are of 50 latencies chosen at random from 90 (max_samples)",
        ),
        (
            report_of(lag_s=0.02),
            "half were sent 20ms late or more: that part of the latency is this tool's own",
        ),
    ],
)
def test_every_bound_that_was_hit_is_said(report: Report, remark: str) -> None:
    assert report.remarks() == (remark,)
    assert f"! {remark}" in text_of(report)
    assert report.to_json()["remarks"] == [remark]


def test_good_run_has_no_remarks() -> None:
    assert report_of().remarks() == ()
