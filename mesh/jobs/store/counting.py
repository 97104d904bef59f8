"""How much is in a store, as its server counts it."""

from __future__ import annotations

import asyncio
from typing import Any

from mesh.jobs.records import Counts, Lane
from mesh.jobs.store.stored import Records

__all__ = ["count"]


async def count(records: Records) -> Counts:
    """See `JobStore.counts`."""
    subjects, ask = records.subjects, records.jetstream.ask
    lanes = list(Lane)
    consumers, work, dead, notices = await asyncio.gather(
        asyncio.gather(*(ask(f"CONSUMER.INFO.{subjects.work}.{lane.name.lower()}") for lane in lanes)),
        ask(f"STREAM.INFO.{subjects.work}"),
        ask(f"STREAM.INFO.{subjects.dead}"),
        ask(f"STREAM.INFO.{subjects.notices}"),
    )
    return Counts(
        waiting={lane: _number(told, "num_pending") for lane, told in zip(lanes, consumers, strict=True)},
        taken={lane: _number(told, "num_ack_pending") for lane, told in zip(lanes, consumers, strict=True)},
        queued_bytes=_number(work["state"], "bytes"),
        dead=_number(dead["state"], "messages"),
        notices=_number(notices["state"], "messages"),
    )


def _number(told: dict[str, Any], name: str) -> int:
    return int(told.get(name, 0))
