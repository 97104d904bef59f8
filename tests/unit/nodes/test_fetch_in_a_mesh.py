"""`Fetch` in a topology: its arguments as a file writes them, and its errors as a caller gets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh import Context, InvalidInput, Tensors, TopologyError
from tests.harness.meshes import compiled, local_mesh
from tests.unit.nodes.fetch_origin import origin, references

FILE = """
mesh: v1
name: pages
models: {models}
inputs:
  page: {{datatype: BYTES, shape: [-1]}}
nodes:
  fetch: {{uses: "nodes.fetch:Fetch", with: {settings}, inputs: {{reference: page}}}}
outputs: {{data: fetch.data}}
"""


def topology(folder: Path, settings: str) -> Path:
    (folder / "models" / "pages").mkdir(parents=True)
    (folder / "models" / "pages" / "a").write_bytes(b"file")
    file = folder / "pages.yaml"
    file.write_text(FILE.format(models=folder / "models", settings=settings))
    return file


def pages(*given: str) -> Tensors:
    return Tensors({"page": references(*given)["reference"]})


@pytest.mark.parametrize("placement", ["fused", "processes"])
async def test_it_answers_alike_wherever_it_runs(placement: str, tmp_path: Path) -> None:
    async with origin() as server:
        allowed = f'roots: [pages], hosts: ["127.0.0.1:{server.port}"], allow_private: true'
        settings = f"{{{allowed}, timeout: 20s, max_bytes: 1MiB}}"
        async with local_mesh(topology(tmp_path, settings), placement, "inproc-strict", tmp_path) as mesh:
            given = pages("file:a", server.body("/a", b"web"), "file:a")
            assert (await mesh(given, Context()))["data"].tolist() == [b"file", b"web", b"file"]
            with pytest.raises(InvalidInput) as caught:
                await mesh(pages("file:a", "file:b"), Context())
    error = caught.value
    assert error.text == "tensor 'reference': file:b: there is no such file"
    assert (error.node, error.tensor, error.row) == ("fetch", "reference", 1)
    assert str(error) == "node fetch: row 1: tensor 'reference': file:b: there is no such file"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("{}", "nothing is allowed: give roots, hosts or buckets"),
        ('{hosts: ["*"]}', "hosts has '*'"),
        ("{roots: [pages], timeout: 0s}", "timeout is 0 seconds"),
        ("{roots: [pages], timeout: 5}", "timeout"),
        ("{roots: [pages], max_bytes: 0B}", "max_bytes is 0"),
        ("{roots: [pages], allow_private: 1}", "allow_private"),
        ("{roots: pages}", "roots"),
        ("{buckets: {pages: {regoin: x}}}", "regoin"),
    ],
)
def test_a_wrong_argument_is_found_in_the_file(settings: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(TopologyError) as caught:
        compiled(topology(tmp_path, settings))
    (problem,) = caught.value.problems
    assert problem.line == 8
    assert text in problem.text
