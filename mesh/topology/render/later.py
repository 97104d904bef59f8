"""What a graph does later than asked, in words: its jobs and its schedules, a line each."""

from __future__ import annotations

from typing import Any

from mesh.topology.graph import Graph
from mesh.units import format_duration

__all__ = ["later_of", "later_shortly", "later_to_json"]


def later_of(graph: Graph) -> list[str]:
    """A line for its jobs, and one for each of its schedules; none where it has none."""
    jobs = graph.jobs
    if jobs is None:
        return []
    kept = f"kept at {', '.join(jobs.servers)}" if jobs.servers else "kept in a store of the mesh's own"
    replicas = f", {jobs.replicas} times" if jobs.replicas > 1 else ""
    lines = [f"jobs: {_counted(jobs.workers, 'worker')} with {jobs.concurrency} at once, {kept}{replicas}"]
    for one in graph.schedules:
        window = f", for at most {format_duration(one.window_s)}" if one.window_s is not None else ""
        lines.append(f"{one.name}: a batch at {one.cron} ({one.timezone}){window}")
    return lines


def later_shortly(graph: Graph) -> list[str]:
    """The same in a few words: `1 worker on jobs`, `2 schedules`."""
    if graph.jobs is None:
        return []
    told = [f"{_counted(graph.jobs.workers, 'worker')} on jobs"]
    return [*told, _counted(len(graph.schedules), "schedule")] if graph.schedules else told


def later_to_json(graph: Graph) -> dict[str, Any]:
    """The same as plain data, without paths and files of this host; empty where there are no jobs."""
    jobs = graph.jobs
    if jobs is None:
        return {}
    return {
        "jobs": {
            "store": list(jobs.servers) or "embedded",
            "replicas": jobs.replicas,
            "workers": jobs.workers,
            "concurrency": jobs.concurrency,
            "lease_s": jobs.lease_s,
            "attempts": jobs.attempts,
            "ttl_s": jobs.ttl_s,
            "max_queued": jobs.max_queued,
        },
        "schedules": [
            {
                "name": one.name,
                "cron": one.cron,
                "timezone": one.timezone,
                "window_s": one.window_s,
                "overlap": one.overlap,
                "catch_up": one.catch_up,
            }
            for one in graph.schedules
        ],
    }


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
