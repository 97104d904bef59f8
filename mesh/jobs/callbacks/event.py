"""What is told of a job's end, and how it is signed. Pure.

Over HTTP it is a CloudEvent 1.0 in its structured JSON form (https://github.com/cloudevents/spec), whose data is the
job as `mesh.v1.Job` in the JSON that protobuf defines for it, without outputs; to a listener it is that message itself.
Both are signed in the same way: see `mesh.jobs.callbacks.signing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from google.protobuf.json_format import MessageToDict

from mesh.jobs.callbacks.signing import sign
from mesh.jobs.messages import encode_job, timestamp
from mesh.jobs.records import Job
from mesh.v1 import job_listener_service_pb2

__all__ = ["CONTENT_TYPE", "EVENT_TYPE", "Post", "job_ended", "post_of"]

EVENT_TYPE = "mesh.job.ended"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
USER_AGENT = "inference-mesh"


@dataclass(frozen=True, slots=True)
class Post:
    """An HTTP request."""

    headers: Mapping[str, str]
    body: bytes


def post_of(job: Job, keys: Sequence[bytes], now: float) -> Post:
    """The request that tells of a job's end.

    Args:
        job: The job. Its outputs are left out: they may be large, and those who are told may not be those who may read.
        keys: What signs it; not signed where there is none.
        now: The time of day at which it is sent.
    """
    event = {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": f"/mesh/{quote(job.graph, safe='')}",
        "subject": job.id,
        # A job ends once, so its id tells repeated events apart from others.
        "id": job.id,
        **({} if job.end_time is None else {"time": timestamp(job.end_time).ToJsonString()}),
        "datacontenttype": "application/json",
        "data": MessageToDict(encode_job(replace(job, outputs=None))),
    }
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {"Content-Type": CONTENT_TYPE, "User-Agent": USER_AGENT}
    return Post({**headers, **_signed(job, keys, now, body)}, body)


def job_ended(
    job: Job, keys: Sequence[bytes], now: float
) -> tuple[job_listener_service_pb2.JobEndedRequest, list[tuple[str, str]]]:
    """The message that tells a listener, and the metadata of the call.

    What is signed is the message `job` as it is sent: its fields in the order of their numbers.
    """
    message = encode_job(replace(job, outputs=None))
    signed = _signed(job, keys, now, message.SerializeToString(deterministic=True))
    request = job_listener_service_pb2.JobEndedRequest(job=message, signature=signed.get("webhook-signature", ""))
    return request, list(signed.items())


def _signed(job: Job, keys: Sequence[bytes], now: float, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks."""
    at = int(now)
    headers = {"webhook-id": job.id, "webhook-timestamp": str(at)}
    if keys:
        headers["webhook-signature"] = sign(keys, job.id, at, body)
    return headers
