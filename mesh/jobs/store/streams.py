"""The streams of a store: what is where, and why nothing is lost, doubled or confused.

Acknowledged means on disk: streams are kept in files, and the server syncs before it acknowledges (`sync_interval:
always` for the mesh's own; a cluster of others has its replicas).

| stream | subjects, below `mesh.<graph>` | what |
|---|---|---|
| `<graph>-work` | `work.<lane>.<id>` | what is to be done; a message a job, from its submission to its end |
| `<graph>-state` | `state.<lane>.<id>` | a job's record, from its first attempt to `expire_time` and a day |
| | `claim.<hash>` | which job an idempotency key means |
| | `document.<key>`, `meta.secret` | small documents; what ids are checked by |
| `<graph>-dead` | `dead.job.<id>`, `dead.notice.<id>` | the dead letter |
| `<graph>-callbacks` | `notice.<id>` | who is to be told of an end |
| `<graph>-events` | `event.<id>` | what branches gave; in memory, for an hour |

**Submitting is one write**, of work, that expects nothing on its subject. So a publish whose answer was lost is
repeated; `max_msgs`, `max_bytes` and discard-new are the bounds. What happens when the first copy was done and gone
before the repetition came: the second is delivered, its job is over already, and it goes.

**One word stands.** Each write of a record names the sequence that it replaces, and the server refuses it where another
is there. RUNNING is written over what was read, the end over one's own RUNNING: a late worker's result is refused. An
attempt is a worker's alone until `lease_time` in its record, which it moves on while it works. (The lease of the
consumer is not enough: it is in the server's memory for some time, and a server that was killed delivers again what a
worker has. Such a delivery is handed back until the record's lease is over.)

**Where a job stands** is told by both streams: a record says it all; work without a record is QUEUED; an id of ours
with neither is EXPIRED; another id was never given. Records of jobs that are over outlive `expire_time` by a day, so
that work whose end was written, and which was not removed before a crash, is still known to be over when it is
delivered again: that is as soon as a worker runs, and after a lease at most.

**Between two writes** any process may die:

| written last | what is left | made whole by |
|---|---|---|
| payload beside the store | a file without a job | the sweeper |
| claim | a key whose job never came | the same key, which stores that very job; or the sweeper, after a day |
| work | the job is QUEUED, and its caller may not know | the same key, which finds it |
| RUNNING | a job without a worker | the next delivery, after the lease: the attempt counts, and had its worker lost |
| QUEUED, for a later attempt | work that is delivered too early | whoever gets it, who hands it back |
| the end | work of a job that is over; perhaps no dead letter, no notice, a claim that does not know | the next \
delivery, which writes what is missing and removes the work |
| CANCELLED | the same, and a worker that was not told | the same; and the worker's next sign of life |

What follows an end is in this order: dead letter, notice, claim, and last the work goes. Each of them may be done twice
without harm: a dead letter is one message a job, and a callback may be told twice.

Payloads are not content-addressed but carry their job's id (and, as results, their attempt): two jobs never share one,
so that whether one is needed is told by whether its job is there, and it goes with its job.

Listing reads both streams in the order of their sequences, a bounded number of messages and bytes a call. Those who
follow a job listen to what the server republishes of each record that it has stored: in order, with the sequence of the
record before it, so that a gap is seen and read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mesh.errors import SetupError, Unavailable
from mesh.jobs.records import Lane
from mesh.jobs.store.group_commit import ATOMIC_VERSION
from mesh.jobs.store.jetstream import ApiError, JetStream
from mesh.jobs.store.settings import StoreSettings
from mesh.jobs.store.subjects import Subjects

__all__ = ["LEAST_VERSION", "NOTICE_LEASE_S", "check_server", "ensure_events", "ensure_streams"]

LEAST_VERSION = (2, 11)
"""The first nats-server with times to live of single messages, and with reading many messages at once."""
NOTICE_LEASE_S = 60.0
"""How long a callback may be told before somebody else tells it."""
_EVENTS_S = 3600.0
_EVENTS_BYTES = 64 << 20
_LAYOUT = {"mesh.layout": "1"}
"""Kept with each stream, so that a later Mesh knows what it finds."""
_OTHER_CONFIGURATION = 10058
_NO_STREAM = 10059
_NO_ROOM = (10023, 10028, 10047)
_NO_JETSTREAM = (10039, 10076)


async def check_server(jetstream: JetStream) -> None:
    """See that the server can be a store.

    Raises:
        SetupError: It is too old, or has no JetStream.
        Unavailable: It does not answer in time.
    """
    connection = jetstream.connection
    if connection.version < LEAST_VERSION:
        text = "{}.{}, and at least {}.{} is needed".format(*connection.version, *LEAST_VERSION)
        raise SetupError(f"the store at {connection.address} is nats-server {text}")
    try:
        await jetstream.api("INFO")
    except ApiError as error:
        if error.code in _NO_JETSTREAM:
            raise SetupError(f"the store at {connection.address} has no JetStream: {error.text}") from None
        raise Unavailable(f"the store at {connection.address} refuses: {error}") from None
    except Unavailable as error:
        if error.text.endswith("has no JetStream"):
            raise SetupError(f"{error.text}: start it with one") from None
        raise


async def ensure_streams(jetstream: JetStream, settings: StoreSettings, subjects: Subjects) -> None:
    """Make the streams and their consumers, or make of those that are there what they should be.

    Raises:
        SetupError: They are there and cannot be that, or the server cannot have them.
        Unavailable: It does not answer in time.
    """
    atomic = jetstream.connection.version >= ATOMIC_VERSION
    for config in _streams(settings, subjects, atomic):
        await _ensure_stream(jetstream, config)
    await ensure_events(jetstream, subjects)
    for stream, config in _consumers(settings, subjects):
        name = config["durable_name"]
        try:
            body = {"stream_name": stream, "config": config}
            await jetstream.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body)
        except ApiError as error:
            where = f"the store at {jetstream.connection.address}"
            raise SetupError(f"{where}: consumer {name} of stream {stream}: {error}") from None


async def ensure_events(jetstream: JetStream, subjects: Subjects) -> None:
    """Make the one stream that is in memory: it is gone when its server was.

    Raises:
        SetupError, Unavailable: As for `ensure_streams`.
    """
    config = {
        "name": subjects.events,
        "subjects": [subjects.events_of("*")],
        "retention": "limits",
        "storage": "memory",
        "discard": "old",
        "max_age": int(_EVENTS_S * 1e9),
        "max_bytes": _EVENTS_BYTES,
        "num_replicas": 1,
        "allow_direct": True,
    }
    await _ensure_stream(jetstream, config)


async def _ensure_stream(jetstream: JetStream, config: Mapping[str, Any]) -> None:
    name = config["name"]
    config = {"duplicate_window": 10**9, "metadata": _LAYOUT, **config}
    where = f"the store at {jetstream.connection.address}: stream {name}"
    # Looked at first: a server whose disk has become fuller does not make again what it has.
    there = await _there(jetstream, name)
    if there is None:
        try:
            await jetstream.api(f"STREAM.CREATE.{name}", config)
            return
        except ApiError as error:
            if error.code != _OTHER_CONFIGURATION:
                hint = f"; it sets {config.get('max_bytes', 0)} bytes aside" if error.code in _NO_ROOM else ""
                raise SetupError(f"{where}: {error}{hint}") from None
        there = await _there(jetstream, name) or {}
    differs = [
        f"{key} is {there.get(key)!r} where {value!r} is needed"
        for key, value in config.items()
        if key not in ("metadata", "duplicate_window") and there.get(key) != value
    ]
    if not differs:
        return
    try:
        await jetstream.api(f"STREAM.UPDATE.{name}", config)
    except ApiError as error:
        raise SetupError(
            f"{where} is there already, with other settings ({'; '.join(differs)}), and the server does not change "
            f"them: {error}"
        ) from None


async def _there(jetstream: JetStream, name: str) -> Mapping[str, Any] | None:
    """The settings of a stream; None where there is none."""
    try:
        found: Mapping[str, Any] = (await jetstream.api(f"STREAM.INFO.{name}"))["config"]
    except ApiError as error:
        if error.code == _NO_STREAM:
            return None
        raise SetupError(f"the store at {jetstream.connection.address}: stream {name}: {error}") from None
    return found


def _streams(settings: StoreSettings, subjects: Subjects, atomic: bool) -> list[dict[str, Any]]:
    kept: dict[str, Any] = {"storage": "file", "num_replicas": settings.replicas, "allow_direct": True}
    batches: dict[str, Any] = {"allow_atomic": True} if atomic else {}
    one: dict[str, Any] = kept | {"retention": "limits", "discard": "old", "max_msgs_per_subject": 1}
    root = subjects.root
    work: dict[str, Any] = kept | {
        "retention": "workqueue",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "discard_new_per_subject": True,
    }
    return [
        {
            "name": subjects.work,
            "subjects": [f"{root}.work.>"],
            "max_msgs": settings.max_queued,
            "max_bytes": settings.max_queued_bytes,
            **work,
            **batches,
        },
        {
            "name": subjects.state,
            "subjects": [f"{root}.state.>", subjects.claims, f"{subjects.documents}>", f"{root}.meta.>"],
            "allow_msg_ttl": True,
            "republish": {"src": f"{root}.state.>", "dest": f"{root}.changed.>"},
            **one,
            **batches,
        },
        {
            "name": subjects.dead,
            "subjects": [f"{root}.dead.>"],
            "max_age": int(settings.dead_ttl_s * 1e9),
            "max_bytes": settings.dead_max_bytes,
            **one,
        },
        {
            "name": subjects.notices,
            "subjects": [subjects.notice_of("*")],
            "max_msgs": settings.max_queued,
            **work,
        },
    ]


def _consumers(settings: StoreSettings, subjects: Subjects) -> list[tuple[str, dict[str, Any]]]:
    given: dict[str, Any] = {"ack_policy": "explicit", "deliver_policy": "all", "max_deliver": -1}
    # What waits for its next attempt was delivered and not acknowledged, too: as many as there may be.
    given["max_ack_pending"] = settings.max_queued
    lanes = [
        {
            "durable_name": lane.name.lower(),
            "filter_subject": subjects.work_of(lane),
            "ack_wait": math.ceil(settings.lease_s * 1e9),
            **given,
        }
        for lane in Lane
    ]
    notices = {"durable_name": "notices", "ack_wait": int(NOTICE_LEASE_S * 1e9), **given}
    return [*((subjects.work, lane) for lane in lanes), (subjects.notices, notices)]
