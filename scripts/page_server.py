"""Serve the scanned page on 127.0.0.1, for topologies/input_data_cache.yaml: `python scripts/page_server.py`.

The page of scikit-image, turned clockwise by each quarter, until it is interrupted. Tells what it is asked for. Needs
`make fetch`.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

__all__ = ["PORT", "PageServer", "serving", "turned_pages"]

ROOT = Path(__file__).resolve().parent.parent
PORT = 8765
"""Where the topology expects them."""
_HOST = "127.0.0.1"
_IDLE_S = 30.0


@cache
def turned_pages() -> Mapping[str, bytes]:
    """The page turned by 0, 90, 180 and 270 degrees, and a text that is no picture, by path."""
    pages: dict[str, bytes] = {}
    with Image.open(ROOT / "models" / "fetched" / "page.png") as page:
        for degrees in (0, 90, 180, 270):
            out = io.BytesIO()
            page.rotate(-degrees, expand=True).save(out, "PNG")
            pages[f"/turned-by-{degrees}.png"] = out.getvalue()
    pages["/page.txt"] = (ROOT / "models" / "page.txt").read_bytes()
    return pages


class PageServer(ThreadingHTTPServer):
    """Answers GET by path, over connections that are kept; anything else is 404.

    Args:
        pages: The bodies by path.
        port: 0 for one that is free.
        loud: Tell what is asked for.
    """

    # So that two test runs on one machine may both serve the same pages at the same port.
    allow_reuse_port = hasattr(socket, "SO_REUSEPORT")
    daemon_threads = True

    def __init__(self, pages: Mapping[str, bytes], port: int = 0, *, loud: bool = False) -> None:
        self.pages = pages
        self.asked: list[str] = []
        """The path of each request so far."""
        self.loud = loud
        super().__init__((_HOST, port), _Handler)

    @property
    def url(self) -> str:
        """Of its root, without a slash."""
        return f"http://{_HOST}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    # Head and body are two writes, and the second would wait for the first to be acknowledged.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if self.server.loud:
            super().log_request(code, size)


@contextmanager
def serving(pages: Mapping[str, bytes], port: int = 0) -> Generator[PageServer]:
    """A server in a thread of this process, gone with the block."""
    with PageServer(pages, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve until interrupted."""
    with PageServer(turned_pages(), PORT, loud=True) as server, suppress(KeyboardInterrupt):
        print("\n".join(server.url + path for path in server.pages), file=sys.stderr)
        server.serve_forever()


if __name__ == "__main__":
    main()
