"""What caches of data reach: the part of `scripts/measure_patterns.py` that is about pages, fetched and prepared."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from mesh.tensors import Tensors
from mesh.transports import InprocTransport
from scripts.cache_passes import SEED, cached_mesh, one_pass, zipf
from scripts.page_server import PORT, serving, turned_pages

__all__ = ["input_data_cache", "preprocessed_data_cache"]

PAGES = 100
DRAWN = 1000
"""Pages that are asked for, one at a time."""
SCALE = 4
"""The scan has 384x191 pixels; a real one has a megapixel."""
NOISE = 2.0
"""Standard deviation, of 256 grey levels: what makes one scan of a page differ from the next."""
_APART = (
    ("intake: {nodes: [fetch,", "intake: {nodes: [fetch, fetch-again,"),
    ("inputs: {image: fetch.data}", "inputs: {image: fetch-again.data}"),
    (
        "  features:\n",
        '  fetch-again:\n    uses: nodes.fetch:Fetch\n    with: {hosts: ["127.0.0.1:PORT"], allow_private: true}\n'
        "    inputs: {reference: reference}\n  features:\n",
    ),
)


@cache
def scans() -> dict[str, bytes]:
    """A hundred scans by path: the page of scikit-image, each turned by a quarter more and with noise of its own."""
    noise = np.random.default_rng(SEED)
    with Image.open(io.BytesIO(turned_pages()["/turned-by-0.png"])) as opened:
        large = opened.convert("L").resize((opened.width * SCALE, opened.height * SCALE))
    made: dict[str, bytes] = {}
    for number in range(PAGES):
        pixels = np.asarray(large.rotate(90 * number, expand=True), np.float64)
        noisy = (pixels + noise.normal(0, NOISE, pixels.shape)).round().clip(0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(noisy).save(out, "PNG")
        made[f"/scan-{number}.png"] = out.getvalue()
    return made


async def input_data_cache() -> dict[str, Any]:
    """Pages by reference, asked of two models: how often each is fetched."""
    paths = list(scans())
    found: dict[str, Any] = {}
    with serving(scans()) as server:
        moved = (f"127.0.0.1:{PORT}", server.url.removeprefix("http://"))
        requests = [Tensors({"reference": [f"{server.url}{paths[page]}".encode()]}) for page in zipf(PAGES, DRAWN)]
        apart = [(old, new.replace("127.0.0.1:PORT", moved[1])) for old, new in _APART]
        without = {"cache": "skip"}
        passes = {"fetched once for both": without, "the cache empty": {}, "the cache full": {}}
        for changes, asked in (([moved, *apart], {"fetched for each model": without}), ([moved], passes)):
            transport = InprocTransport()
            async with cached_mesh("input_data_cache", "fused", transport, replace=changes) as mesh:
                for name, parameters in asked.items():
                    server.asked.clear()
                    one = await one_pass(mesh, transport, "fetch", requests, parameters)
                    sent = sum(len(scans()[path]) for path in server.asked)
                    found[name] = {**one, "fetched": len(server.asked), "megabytes": round(sent / 1e6, 1)}
    return found


async def preprocessed_data_cache() -> dict[str, Any]:
    """The same pages, sent along: how often each is decoded."""
    pages = list(scans().values())
    requests = [Tensors({"page": [pages[page]]}) for page in zipf(PAGES, DRAWN)]
    transport = InprocTransport()
    found: dict[str, Any] = {}
    async with cached_mesh("preprocessed_data_cache", "fused", transport) as mesh:
        for name, parameters in (("`cache: skip`", {"cache": "skip"}), ("the cache empty", {}), ("the cache full", {})):
            found[name] = await one_pass(mesh, transport, "prepare", requests, parameters)
    return found
