"""Every rule of `check_transport`, on every transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mesh.testing import TRANSPORT_RULES, TransportBench
from mesh.transports import InprocTransport, Transport
from tests.harness.engines import PAIRS

TRANSPORTS: Mapping[str, tuple[Callable[[], Transport], str]] = {
    "inproc": (InprocTransport, "inproc://{name}"),
    "inproc-strict": (lambda: InprocTransport(strict=True), "inproc://{name}"),
    **{f"{pair}-tcp": (transport, "grpc://127.0.0.1:0") for pair, transport in PAIRS.items()},
    **{f"{pair}-unix": (transport, "unix:{folder}/{name}.sock") for pair, transport in PAIRS.items()},
}


@pytest.mark.parametrize("rule", TRANSPORT_RULES)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_transport_keeps_the_rule(transport: str, rule: str, tmp_path: Path) -> None:
    make, address = TRANSPORTS[transport]
    bench = TransportBench(rule, make(), lambda name: address.format(name=name, folder=tmp_path))
    await TRANSPORT_RULES[rule](bench)
