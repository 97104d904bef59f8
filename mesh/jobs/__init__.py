"""Durable jobs over the graph of a gateway: the store, the workers, the services.

    async with JobStore(StoreSettings(graph="digits", servers=("nats://localhost:4222",), folder="/var/mesh")) as store:
        job, _ = await store.submit(Work(inputs=tensors), key="asked-once")
        async for event in store.follow(job.id):
            ...

A job is run at least once and has exactly one result for whoever looks; how, is told in `mesh.jobs.store.streams`. The
client of NATS is imported when a store is opened: the extra `nats`.
"""

from mesh.jobs.records import (
    KEPT_ATTEMPTS,
    OVER,
    RUNS,
    Attempt,
    Callback,
    Conflict,
    Counts,
    Job,
    JobState,
    Lane,
    Page,
    Progress,
    Work,
)
from mesh.jobs.store.job_store import Delivery, JobStore, Lease, Notice
from mesh.jobs.store.settings import StoreSettings, StoreTls

__all__ = [
    "KEPT_ATTEMPTS",
    "OVER",
    "RUNS",
    "Attempt",
    "Callback",
    "Conflict",
    "Counts",
    "Delivery",
    "Job",
    "JobState",
    "JobStore",
    "Lane",
    "Lease",
    "Notice",
    "Page",
    "Progress",
    "StoreSettings",
    "StoreTls",
    "Work",
]
