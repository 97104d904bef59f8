"""What importing costs, and both event loops."""

from __future__ import annotations

import subprocess
import sys

import pytest
import uvloop

from mesh.caches import BackendSettings, open_backend
from mesh.testing import CACHE_RULES, CacheBench, check_cache
from tests.harness.valkey import valkey

_LOADED = "import sys, mesh.caches; print([name for name in ('aiocache', 'redis', 'ssl') if name in sys.modules])"


def test_the_package_brings_no_backend_before_one_is_opened() -> None:
    found = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    assert "aiocache" not in found.stdout
    assert "redis" not in found.stdout


@pytest.mark.parametrize("rule", ["kept", "any bytes", "many at once", "cancellation", "closing"])
def test_valkey_keeps_the_contract_on_uvloop(rule: str) -> None:
    assert rule in CACHE_RULES
    settings = BackendSettings(max_value_bytes=64 << 10, timeout_s=30.0)
    with valkey() as server:

        async def pass_time(seconds: float) -> None:
            server.ask(b"BLPOP nothing %f\r\n" % seconds)

        bench = CacheBench(
            make=lambda: open_backend(server.url, settings), pass_time=pass_time, max_value_bytes=64 << 10
        )
        uvloop.run(check_cache(bench, rule))
