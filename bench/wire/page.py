"""The tables of `docs/performance.md` that tell of the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["wire_tables"]

NAMES = {"wire": "wire", "grpcio": "grpcio", "grpcio on uvloop": "grpcio, uvloop", "pygrpc-native": "pygrpc-native"}
MISSING = "-"
PARTS = {
    "server": "**Server**: CPU µs a call, or a message of a stream, under the same load client.",
    "neutral": "**Server under h2load**: CPU µs a call.",
    "client": "**Client**: CPU µs a call, each client calling the same (`wire`) server.",
    "client_of_pair": (
        "**Client, each with a server of its own make** (pygrpc-native's is called by grpcio's client): CPU µs a call. "
        "What a client takes depends on whether answers come one by one, or many in one read."
    ),
    "both_of_pair": "**Client and server together**: CPU µs a call.",
    "pair": "**Client to server of the same make**: wall µs a call.",
    "large": "**An echo of 3 MiB**, one in flight, client and server of the same make: wall µs a call.",
}
JUDGED = ("server", "client", "client_of_pair", "pair", "large")


def wire_tables(told: dict[str, Any], table: Callable[[tuple[str, ...], list[tuple[str, ...]]], str]) -> str:
    """All of them, each under a line that says what it shows."""

    def one(title: str, points: Mapping[str, Any]) -> str:
        contenders = [name for name in NAMES if any(name in point["us"] for point in points.values())]
        head = ("load", *(NAMES[name] for name in contenders), "grpcio / wire", "pygrpc-native / wire", "target")
        return f"{title}\n\n{table(head, [_row(name, point, contenders) for name, point in points.items()])}"

    blocks = [one(title, told[part]) for part, title in PARTS.items() if part in told]
    return "\n\n".join((*blocks, " ".join(_notes(told))))


def _row(name: str, point: Mapping[str, Any], contenders: Iterable[str]) -> tuple[str, ...]:
    figures = {other: f"{point['us'][other]:,.1f}" if other in point["us"] else MISSING for other in contenders}
    figures["wire"] = f"**{figures['wire']}**"
    native = point.get("ratio_to_native")
    ratio = f"**{point['ratio']:.1f}** ({point['ratio_min']:.1f} to {point['ratio_max']:.1f})"
    return (name, *figures.values(), ratio, MISSING if native is None else f"{native:.1f}", _target(point))


def _target(point: Mapping[str, Any]) -> str:
    if "target" not in point:
        return MISSING
    return f"{point['target']:g}: {'met' if point['met'] else '**missed**'}"


def _notes(told: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"Medians of {told['rounds']} rounds in turn; ratios are medians of the ratios within a round (lowest to "
        "highest), to grpcio on the loop on which it does better at that point. More is better for `wire`."
    )
    if told["native"][0].isdigit():
        yield (
            f"pygrpc-native {told['native']}, a Rust server without a client; streams of requests it hands on to "
            "grpcio."
        )
    else:
        yield f"pygrpc-native: {told['native']}."
    if "neutral" not in told:
        yield "h2load is not installed here."
    missed = [
        f"{kind.replace('_', ' ')}, {name} ({point['ratio']:.1f} of {point['target']:g})"
        for kind in JUDGED
        for name, point in told[kind].items()
        if not point.get("met", True)
    ]
    yield f"Targets missed: {'; '.join(missed)}." if missed else "Every target is met."
    aim = told["large_aim"]
    short = [name for name, point in told["large"].items() if point["ratio"] < aim]
    if short:
        yield f"The aim of {aim} times faster is not reached for {' and '.join(short)}."
    behind = [
        f"{kind}, {name}"
        for kind in ("server", "pair", "large")
        for name, point in told[kind].items()
        if _behind(point)
    ]
    if behind:
        yield f"pygrpc-native is ahead at: {'; '.join(behind)}."


def _behind(point: Mapping[str, Any]) -> bool:
    return point.get("ratio_to_native", 1.0) < 1.0
