"""What the cache patterns are for: fetched once, prepared once, computed once, and never in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from mesh.context import Context
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.transports import Limits
from scripts.page_server import PORT, serving, turned_pages
from scripts.record_golden import GOLDEN, Golden
from tests.harness.meshes import LINKS, TOPOLOGIES, local_mesh
from tests.harness.outside import moved
from tests.harness.valkey import valkey

ENGINES = ("wire", "grpcio")


def plain(name: str) -> tuple[Tensors, Tensors]:
    """The first recorded request of a topology, and its answer."""
    case = Golden.read(GOLDEN / f"{name}.json").cases[0]
    assert isinstance(case.result, Tensors)
    return case.request, case.result


async def computed(mesh: LocalMesh, link: str) -> int:
    """Rows that the one node with a cache was run on so far, wherever it runs."""
    dialled = await LINKS[link].transport().dial(mesh.gateway_address, Limits())
    try:
        (cached,) = (await dialled.stats(5.0)).cached
        return cached.misses
    finally:
        await dialled.close()


# ===== Input data =====


@pytest.mark.parametrize("link", ENGINES)
@pytest.mark.parametrize("placement", ["fused", "processes", "intake"])
async def test_a_page_is_fetched_once_for_both_models_and_all_callers(
    placement: str, link: str, tmp_path: Path
) -> None:
    pages = [path for path in turned_pages() if path.endswith(".png")]
    order = [0, 1, 0, 2, 3, 3, 2, 1]
    with serving(turned_pages()) as server:
        file = moved(
            TOPOLOGIES / "input_data_cache.yaml", tmp_path, {f"127.0.0.1:{PORT}": server.url[len("http://") :]}
        )
        wanted = Tensors({"reference": [f"{server.url}{pages[row]}".encode() for row in order]})
        async with local_mesh(file, placement, link, tmp_path) as mesh:

            async def ask(context: Context) -> Tensors:
                return await mesh(wanted, context.within(30.0))

            answers = await asyncio.gather(*(ask(Context()) for _ in range(4)))
            assert sorted(server.asked) == sorted(pages)
            assert all(answer["turned"].argmax(axis=1).tolist() == order for answer in answers)
            await ask(Context())
            assert await computed(mesh, link) == len(server.asked) == len(pages)
            await ask(Context(parameters={"cache": "refresh"}))
            assert len(server.asked) == 2 * len(pages), "who wants it fresh has it fetched"


async def test_pages_that_were_fetched_are_there_when_their_server_is_not(tmp_path: Path) -> None:
    with serving(turned_pages()) as server:
        file = moved(
            TOPOLOGIES / "input_data_cache.yaml", tmp_path, {f"127.0.0.1:{PORT}": server.url[len("http://") :]}
        )
        wanted = Tensors({"reference": [f"{server.url}/turned-by-270.png".encode()]})
        async with local_mesh(file, "fused", "inproc", tmp_path) as mesh:
            before = await mesh(wanted)
            server.pages = {}
            assert await mesh(wanted) == before


# ===== Preprocessed data =====


@pytest.mark.parametrize("link", ENGINES)
@pytest.mark.parametrize("placement", ["fused", "processes", "prepared"])
async def test_a_page_is_prepared_once_and_the_model_asked_each_time(placement: str, link: str, tmp_path: Path) -> None:
    request, _ = plain("preprocessed_data_cache")
    async with local_mesh(TOPOLOGIES / "preprocessed_data_cache.yaml", placement, link, tmp_path) as mesh:
        first = await mesh(request)
        assert await computed(mesh, link) == 2, "of three rows two differ"
        again = Context(timings=[])
        assert await mesh(request, again) == first
        assert await computed(mesh, link) == 2
    spent = {timing.node: timing.compute_s for timing in again.timings or ()}
    assert spent["prepare"] == 0 < spent["which"]


# ===== Tiers =====


async def test_a_restart_loses_the_memory_and_not_the_server_and_a_server_that_is_gone_loses_time(
    tmp_path: Path,
) -> None:
    request, recorded = plain("tiered_cache")
    with valkey() as server:
        file = moved(TOPOLOGIES / "tiered_cache.yaml", tmp_path, {"redis://127.0.0.1:6379": server.url})

        async def twice(placement: str) -> tuple[Tensors, list[int]]:
            """What a mesh that has just started answers, and the rows that MiniLM was asked about by then."""
            asked: list[int] = []
            async with local_mesh(file, placement, "wire", tmp_path) as mesh:
                answers: list[Tensors] = []
                for _ in range(2):
                    answers.append(await mesh(request, Context().within(30.0)))
                    asked.append(await computed(mesh, "wire"))
            assert answers[0] == answers[1]
            return answers[0], asked

        first, asked = await twice("fused")
        np.testing.assert_allclose(first["probabilities"], recorded["probabilities"], rtol=0, atol=1e-4)
        assert asked == [5, 5], "of six rows two are one sentence"
        # Two replicas, and neither has ever computed anything.
        assert await twice("tiered") == (first, [0, 0])
        server.kill()
        alone, asked = await twice("fused")
        assert asked == [5, 5], "the memory above it serves on"
        np.testing.assert_allclose(alone["probabilities"], first["probabilities"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("what", ["killed", "paused", "full"])
async def test_no_request_fails_of_a_server_that_is_killed_or_paused_or_full_under_load(
    what: str, tmp_path: Path
) -> None:
    texts = [f"This is film number {number}, and I liked it.".encode() for number in range(24)]
    rows = [Tensors({"text": np.array([[text]], object)}) for text in texts]
    full = ("maxmemory 1mb", "maxmemory-policy noeviction") if what == "full" else ()
    with valkey(*full) as server:
        file = moved(TOPOLOGIES / "tiered_cache.yaml", tmp_path, {"redis://127.0.0.1:6379": server.url})
        async with local_mesh(file, "tiered", "wire", tmp_path) as mesh:

            def asked(few: list[Tensors], how: dict[str, str]) -> list[asyncio.Task[Tensors]]:
                context = Context(parameters=dict(how)).within(60.0)
                return [asyncio.ensure_future(mesh(row, context)) for row in few]

            expected = await asyncio.gather(*asked(rows, {"cache": "skip"}))
            load = [task for _ in range(4) for task in asked(rows[:16], {})]
            _, pending = await asyncio.wait(load, return_when=asyncio.FIRST_COMPLETED)
            assert pending
            {"killed": server.kill, "paused": server.pause, "full": lambda: None}[what]()
            answers = await asyncio.gather(*load, *asked(rows, {}))
            if what == "full":
                assert server.ask(b"INFO errorstats\r\n").count(b"errorstat_OOM"), "nothing was refused"
    for answer, alone in zip(answers, [*expected[:16] * 4, *expected], strict=True):
        # Rows met in other batches.
        np.testing.assert_allclose(answer["probabilities"], alone["probabilities"], rtol=0, atol=1e-4)
