"""Servers that some topologies need beside their own workers, started by the tests: pages to fetch, a Valkey."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.page_server import PORT, serving, turned_pages
from tests.harness.meshes import TOPOLOGIES
from tests.harness.valkey import valkey

__all__ = ["moved", "outside"]

_PAGES = f"127.0.0.1:{PORT}"
_VALKEY = "redis://127.0.0.1:6379"


@contextmanager
def outside(file: Path) -> Generator[Path]:
    """Start what a topology needs; where to find the topology meanwhile.

    Pages are served at the very port that the file names. The Valkey is one of its own, empty and on a unix socket: at
    the usual port there may be one that holds somebody's data.
    """
    text = file.read_text()
    with ExitStack() as started:
        if _PAGES in text:
            started.enter_context(serving(turned_pages(), PORT))
        if _VALKEY in text:
            server = started.enter_context(valkey())
            folder = Path(started.enter_context(TemporaryDirectory()))
            file = moved(file, folder, {_VALKEY: server.url})
        yield file


def moved(file: Path, folder: Path, changes: dict[str, str]) -> Path:
    """A copy of a topology in another folder, with some of its text changed."""
    text = file.read_text()
    changes = {"models: ../models\n": f"models: {TOPOLOGIES.parent / 'models'}\n", **changes}
    for old, new in changes.items():
        assert old in text, f"{file.name} does not say {old!r}"
        text = text.replace(old, new)
    copy = folder / file.name
    copy.write_text(text)
    return copy
