"""Orders and cycles of a graph given as `name -> names that feed it`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["find_cycle", "in_order"]


def in_order(feeds: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, each after those that feed it, otherwise in the given order; those on or behind a cycle are left out."""
    missing = {name: len(set(before)) for name, before in feeds.items()}
    followers: dict[str, list[str]] = {name: [] for name in feeds}
    for name, before in feeds.items():
        for feed in set(before):
            followers[feed].append(name)
    ready = [name for name, count in missing.items() if count == 0]
    ordered: list[str] = []
    # A list that grows while it is read: first come, first served.
    for name in ready:
        ordered.append(name)
        for follower in followers[name]:
            missing[follower] -= 1
            if missing[follower] == 0:
                ready.append(follower)
    return ordered


def find_cycle(feeds: Mapping[str, Sequence[str]]) -> list[str]:
    """One cycle among names of which each has a feed among them; in the direction of the flow."""
    name = next(iter(feeds))
    way: list[str] = []
    while name not in way:
        way.append(name)
        # Every one of these has a feed that is left as well: otherwise it would have been put in order.
        name = next(feed for feed in feeds[name] if feed in feeds)
    return way[way.index(name) :][::-1]
