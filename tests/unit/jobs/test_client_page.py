"""The page about jobs: its Python runs as it stands, and it names what there is."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import numpy as np
import pytest

from mesh.cli.main import main
from mesh.hosts import AllowedHosts
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.records import JobState, Lane
from mesh.jobs.service import JobService
from mesh.jobs.submission import Submissions
from mesh.signature import TensorSpec
from mesh.tensors import Tensors
from mesh.transports import Limits
from tests.harness.meshes import ROOT
from tests.unit.jobs.telling import TellingStore, gateway, job_of, promptly

PAGE = (ROOT / "docs" / "jobs.md").read_text()
ADDRESS = "grpc://127.0.0.1:8001"


async def test_the_python_on_the_page_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    store = TellingStore()
    store.events.put_nowait(job_of("job-0", JobState.DONE, outputs=Tensors({"label": np.array([1])})))
    specs = {"text": TensorSpec("BYTES", ("rows", 1))}
    callbacks = CallbackSettings(hosts=AllowedHosts(()))
    service = JobService(store, Submissions("digits", specs, limits=Limits(), callbacks=callbacks))
    async with promptly(), gateway(service) as address:
        assert ADDRESS in code
        compiled = compile(code.replace(ADDRESS, address), "jobs.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running: Any = eval(compiled, {})
        assert inspect.iscoroutine(running)
        await running
    assert capsys.readouterr().out == "[1]\n"
    _, work, key = store.calls[0]
    assert (key, work.lane) == ("order-4711", Lane.HIGH)


def test_every_state_is_on_the_page() -> None:
    assert [state.name for state in JobState if f"| `{state.name}` |" not in PAGE] == []


@pytest.mark.parametrize("verb", ["submit", "watch", "get", "list", "cancel", "replay"])
def test_every_command_is_on_the_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"| `mesh job {verb} ADDRESS" in PAGE
    with pytest.raises(SystemExit) as ended:
        main(["job", verb, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: mesh job {verb}")
