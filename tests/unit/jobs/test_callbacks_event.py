from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import ParseDict

from mesh.jobs.callbacks.event import CONTENT_TYPE, EVENT_TYPE, job_ended, post_of
from mesh.jobs.callbacks.signing import verify
from mesh.jobs.messages import decode_job
from mesh.v1 import job_service_pb2
from tests.unit.jobs.hooks import KEY, job

NOW = 1_700_000_002.7


def event(**changes: Any) -> dict[str, Any]:
    return json.loads(post_of(job(**changes), (), NOW).body)


def test_the_event_is_a_cloud_event_in_its_structured_form() -> None:
    told = event()
    assert told.pop("data")["state"] == "JOB_STATE_FAILED"
    assert told == {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": "/mesh/digits",
        "subject": "a" * 32,
        "id": "a" * 32,
        "time": "2023-11-14T22:13:21.500Z",
        "datacontenttype": "application/json",
    }
    assert post_of(job(), (), NOW).headers["Content-Type"] == CONTENT_TYPE


def test_its_data_is_the_job_without_its_outputs() -> None:
    told = ParseDict(event()["data"], job_service_pb2.Job())
    assert decode_job(told) == replace(job(), outputs=None)


def test_a_name_that_a_url_cannot_spell_is_escaped_in_the_source() -> None:
    assert event(graph="a/b c")["source"] == "/mesh/a%2Fb%20c"


def test_the_post_is_signed_over_what_is_sent() -> None:
    post = post_of(job(), (KEY,), NOW)
    assert post.headers["webhook-id"] == "a" * 32
    assert post.headers["webhook-timestamp"] == "1700000002"
    assert verify([KEY], post.headers["webhook-signature"], "a" * 32, 1_700_000_002, post.body, now=NOW)


def test_without_a_key_there_is_no_signature() -> None:
    assert "webhook-signature" not in post_of(job(), (), NOW).headers
    request, metadata = job_ended(job(), (), NOW)
    assert request.signature == ""
    assert dict(metadata) == {"webhook-id": "a" * 32, "webhook-timestamp": "1700000002"}


def test_a_listener_is_told_the_same_job_and_the_same_kind_of_signature() -> None:
    request, metadata = job_ended(job(), (KEY,), NOW)
    assert decode_job(request.job) == replace(job(), outputs=None)
    assert dict(metadata)["webhook-signature"] == request.signature
    # As whoever is told has it: the job's bytes, out of the message that arrived.
    arrived = type(request).FromString(request.SerializeToString())
    assert verify([KEY], arrived.signature, "a" * 32, 1_700_000_002, arrived.job.SerializeToString(), now=NOW)
