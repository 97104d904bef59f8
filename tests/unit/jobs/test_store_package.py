from __future__ import annotations

import subprocess
import sys

import pytest

from mesh.errors import SetupError
from mesh.jobs import JobStore, StoreSettings


def test_the_package_does_without_the_clients_of_stores() -> None:
    named = "{'nats', 'obstore', 'pyarrow', 'croniter'}"
    code = f"import sys, mesh.jobs; print({named} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


async def test_a_store_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    with pytest.raises(SetupError, match=r"pip install 'inference-mesh\[nats\]'"):
        await JobStore(StoreSettings(graph="g", servers=("nats://127.0.0.1:1",), folder="/nowhere")).__aenter__()


@pytest.mark.parametrize(
    "changes",
    [
        {"lease_s": 0.0},
        {"result_ttl_s": float("nan")},
        {"dead_ttl_s": float("inf")},
        {"timeout_s": -1.0},
        {"attempts": 0},
        {"max_queued": 0},
        {"max_queued_bytes": 0},
        {"max_payload_bytes": 0},
        {"dead_max_bytes": 0},
        {"replicas": 2},
        {"servers": ()},
    ],
)
def test_a_bound_that_is_none_is_refused(changes: dict[str, object]) -> None:
    given: dict[str, object] = {"graph": "g", "servers": ("nats://127.0.0.1:1",), **changes}
    with pytest.raises(SetupError, match=next(iter(changes)).removesuffix("s")):
        StoreSettings(**given)  # type: ignore[arg-type]
