"""Orders and cycles of a graph given as `name -> names that feed it`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

__all__ = ["find_cycles", "in_order"]


def in_order(feeds: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, each after those that feed it, otherwise in the given order; those on or behind a cycle are left out."""
    missing = {name: len(set(before)) for name, before in feeds.items()}
    followers: dict[str, list[str]] = {name: [] for name in feeds}
    for name, before in feeds.items():
        for feed in dict.fromkeys(before):
            followers[feed].append(name)
    ready = [name for name, count in missing.items() if count == 0]
    # A list that grows while it is read: first come, first served.
    for name in ready:
        for follower in followers[name]:
            missing[follower] -= 1
            if missing[follower] == 0:
                ready.append(follower)
    return ready


def find_cycles(feeds: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Cycles that share no name, at least one of every knot; each in the direction of the flow. None in a DAG."""
    found: list[list[str]] = []
    told: set[str] = set()
    done: set[str] = set()
    for start in feeds:
        # Names on the way against the flow, each with the feeds that are still to be tried.
        way: dict[str, Iterator[str]] = {} if start in done else {start: iter(feeds[start])}
        while way:
            name = next(reversed(way))
            feed = next(way[name], None)
            if feed is None:
                way.popitem()
                done.add(name)
            elif feed in way:
                names = list(way)
                cycle = names[names.index(feed) :]
                if told.isdisjoint(cycle):
                    told.update(cycle)
                    found.append(cycle[::-1])
            elif feed not in done:
                way[feed] = iter(feeds[feed])
    return found
