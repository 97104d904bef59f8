"""Orders and cycles, held against their definitions over random graphs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.topology.order import find_cycles, in_order

Feeds = dict[str, list[str]]


@st.composite
def graphs(draw: st.DrawFn) -> Feeds:
    names = [f"n{index}" for index in range(draw(st.integers(0, 7)))]
    feeds = st.lists(st.sampled_from(names), max_size=3) if names else st.just([])
    return {name: draw(feeds) for name in names}


@st.composite
def dags(draw: st.DrawFn) -> Feeds:
    """Acyclic, given in an order that has nothing to do with the flow."""
    names = [f"n{index}" for index in range(draw(st.integers(0, 7)))]
    feeds = {
        name: draw(st.lists(st.sampled_from(names[:at]), max_size=3)) if at else [] for at, name in enumerate(names)
    }
    return {name: feeds[name] for name in draw(st.permutations(names))}


def behind(feeds: Feeds, name: str) -> set[str]:
    """Whatever leads to a node; the node itself where it is on a cycle."""
    found: set[str] = set()
    frontier = list(feeds[name])
    while frontier:
        one = frontier.pop()
        if one not in found:
            found.add(one)
            frontier.extend(feeds[one])
    return found


@given(dags())
def test_every_node_of_a_dag_comes_after_those_that_feed_it(feeds: Feeds) -> None:
    order = in_order(feeds)
    assert sorted(order) == sorted(feeds)
    assert all(order.index(feed) < order.index(name) for name in feeds for feed in feeds[name])
    assert find_cycles(feeds) == []


@given(graphs())
def test_what_is_on_or_behind_a_cycle_is_left_out_and_nothing_else(feeds: Feeds) -> None:
    cyclic = {name for name in feeds if name in behind(feeds, name)}
    left_out = {name for name in feeds if name in cyclic or not cyclic.isdisjoint(behind(feeds, name))}
    assert set(in_order(feeds)) == set(feeds) - left_out


@given(graphs())
def test_cycles_are_real_share_no_node_and_leave_no_knot_untold(feeds: Feeds) -> None:
    cycles = find_cycles(feeds)
    for cycle in cycles:
        assert all(before in feeds[name] for before, name in zip([cycle[-1], *cycle], cycle, strict=False))
    told = [name for cycle in cycles for name in cycle]
    assert len(told) == len(set(told))
    for name in feeds:
        knot = {other for other in behind(feeds, name) if name in behind(feeds, other)}
        assert not knot or not knot.isdisjoint(told)


def test_nodes_that_may_go_in_either_order_stay_as_they_are_given() -> None:
    assert in_order({"b": [], "a": [], "d": ["a"], "c": ["b"]}) == ["b", "a", "c", "d"]
    assert in_order({}) == []


def test_a_chain_of_many_thousands_does_not_exhaust_the_stack() -> None:
    count = 20_000
    feeds = {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(count)}
    assert in_order(feeds) == list(feeds)
    feeds["n0"] = [f"n{count - 1}"]
    assert in_order(feeds) == []
    assert [len(cycle) for cycle in find_cycles(feeds)] == [count]
