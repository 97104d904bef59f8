"""docs/wire.md says what the code says: every limit and option, and its default."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mesh.wire.client_options import ChannelOptions
from mesh.wire.limits import WireLimits
from mesh.wire.options import ServerOptions
from mesh.wire.server import MAX_CONNECTIONS
from mesh.wire.service_config import POLICIES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "wire.md").read_text()
OTHER_VALUES = (7, 1, 0, 2, "x")
"""One of them is no option's default, and is taken by it."""


def section(title: str) -> str:
    return PAGE.split(f"### {title}\n")[1].split("\n### ")[0]


def table(title: str) -> Mapping[str, str]:
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section(title), re.MULTILINE))


def shown(name: str, value: Any) -> str:
    """A default as the page writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_s"):
        return "never" if value is None else f"{value:,.0f} s"
    if name.endswith("_bytes") and value is not None:
        if value < 0:
            return "any"
        unit, bits = ("MiB", 20) if value >> 20 else ("KiB", 10)
        assert not value % (1 << bits), f"{name} is no round number"
        return f"{value >> bits} {unit}"
    return "-" if value is None else f"{value:,}"


def field_of(option: str, read: Callable[[Any], Any]) -> str:
    """Which field an option of grpcio's name sets."""
    usual = read(())
    for value in OTHER_VALUES:
        try:
            found = read([(option, value)])
        except ValueError:
            if option != "grpc.default_compression_algorithm":
                raise
            continue
        changed = [one.name for one in fields(usual) if getattr(found, one.name) != getattr(usual, one.name)]
        if changed:
            assert len(changed) == 1
            return changed[0]
    raise AssertionError(f"{option} changes nothing")


def test_every_limit_of_a_connection_is_told() -> None:
    limits = WireLimits()
    assert table("A connection") == {one.name: shown(one.name, getattr(limits, one.name)) for one in fields(limits)}
    assert f"{MAX_CONNECTIONS:,} connections" in section("A connection")


@pytest.mark.parametrize(
    ("title", "read", "untold"),
    [
        ("A server", ServerOptions.read, set[str]()),
        ("A channel", ChannelOptions.read, {"service_config", "user_agent"}),
    ],
)
def test_every_option_is_told(title: str, read: Callable[[Any], Any], untold: set[str]) -> None:
    usual = read(())
    told = {field_of(option, read): default for option, default in table(title).items()}
    wanted = [one.name for one in fields(usual) if one.name not in untold]
    assert told == {name: shown(name, getattr(usual, name)) for name in wanted}


def test_every_way_of_balancing_is_told() -> None:
    assert re.findall(r"`(\w+)`", section("A channel").split("by service config")[0]) == list(POLICIES)
