"""`Fetch` in a topology: its arguments as a file writes them, and its errors as a caller gets them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh import Context, InvalidInput, Tensors, TopologyError
from mesh.testing import settle
from tests.harness.meshes import compiled, local_mesh
from tests.unit.nodes.fetch_origin import answer, origin, references

FILE = """
mesh: v1
name: pages
models: {models}
inputs:
  page: {{datatype: BYTES, shape: [-1]}}
nodes:
  fetch: {{uses: "nodes.fetch:Fetch", with: {settings}, inputs: {{reference: page}}, layers: {layers}}}
{caches}
outputs: {{data: fetch.data}}
"""


def topology(folder: Path, settings: str, layers: str = "[]", caches: str = "") -> Path:
    (folder / "models" / "pages").mkdir(parents=True)
    (folder / "models" / "pages" / "a").write_bytes(b"file")
    file = folder / "pages.yaml"
    file.write_text(FILE.format(models=folder / "models", settings=settings, layers=layers, caches=caches))
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


@pytest.mark.parametrize("placement", ["fused", "processes"])
async def test_the_good_rows_of_a_request_with_a_bad_one_are_fetched_once_and_kept(
    placement: str, tmp_path: Path
) -> None:
    async with origin() as server:
        settings = f'{{hosts: ["127.0.0.1:{server.port}"], allow_private: true, timeout: 20s}}'
        layers = "[{cache: {in: hot}}, {batch: {max_rows: 8}}]"
        file = topology(tmp_path, settings, layers, 'caches: {hot: {backend: "memory://"}}')
        async with local_mesh(file, placement, "inproc-strict", tmp_path) as mesh:
            one, two = server.body("/one", b"1"), server.body("/two", b"2")
            for bad, why in ((server.url + "/none", "404"), ("http://elsewhere/", "not allowed"), ("file:x", "file:")):
                with pytest.raises(InvalidInput, match=why) as caught:
                    await mesh(pages(one, bad, two), Context())
                assert caught.value.row == 1
            assert (await mesh(pages(two, one), Context()))["data"].tolist() == [b"2", b"1"]
    assert sorted(server.asked) == ["/none", "/one", "/two"]


async def test_a_bad_row_in_a_batch_of_several_requests_fails_only_its_own(tmp_path: Path) -> None:
    async with origin() as server:
        hold = asyncio.Event()

        async def held(writer: asyncio.StreamWriter) -> None:
            await hold.wait()
            writer.write(answer(b"0", "Content-Length: 1"))

        settings = f'{{hosts: ["127.0.0.1:{server.port}"], allow_private: true, timeout: 20s}}'
        file = topology(tmp_path, settings, "[{batch: {max_rows: 8}}]")
        async with local_mesh(file, "fused", "inproc-strict", tmp_path) as mesh:
            asked = [
                (server.raw("/held", held),),
                (server.body("/one", b"1"), server.body("/two", b"2")),
                (server.url + "/none", server.body("/three", b"3")),
                ("http://elsewhere/",),
                (server.body("/four", b"4"),),
            ]
            calls: list[asyncio.Task[Tensors]] = []
            for index, urls in enumerate(asked):
                calls.append(asyncio.ensure_future(mesh(pages(*urls), Context(request_id=str(index)))))
                await server.begun.wait()  # the first one is at work: the others will go together
            await settle()
            hold.set()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
    told = [one["data"].tolist() if isinstance(one, Tensors) else one for one in outcomes]
    assert [told[0], told[1], told[4]] == [[b"0"], [b"1", b"2"], [b"4"]]
    for index, why in ((2, "404"), (3, "not allowed")):
        error = told[index]
        assert isinstance(error, InvalidInput)
        assert why in error.text
        assert (error.row, error.request_id) == (0, str(index))
    assert sorted(server.asked) == ["/four", "/held", "/none", "/one", "/three", "/two"], "nothing was fetched twice"


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
