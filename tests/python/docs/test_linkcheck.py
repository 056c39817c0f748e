"""`docs/build.py --linkcheck` tells dead links from those that cannot be reached; the build knows the site's own."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[3] / "docs"
pytest.importorskip("myst_parser", reason="sphinx and its extensions are not installed (pip install rtpool[docs])")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/there": 200, "/busy": 503}.get(self.path, 404))
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b'<html><body><p id="part">A page.</p></body></html>')

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write_pages(folder: Path, *links: str) -> None:
    """A site of one page with the book's own settings of links."""
    told = (DOCS / "conf.py").read_text(encoding="utf-8")
    settings = [line for line in told.splitlines() if line.startswith("myst_heading_anchors")]
    assert settings
    (folder / "conf.py").write_text("\n".join(["extensions = ['myst_parser']", *settings, ""]))
    lines = "\n".join(f"* [link {number}]({link})" for number, link in enumerate(links))
    (folder / "index.md").write_text(f"# A page\n\n{lines}\n\n## A part\n\nText.\n")


# The port is nobody's: connections are refused.
NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("links", "code", "told"),
    [
        (("{site}/there", "{site}/there#part"), 0, "2 links to other sites followed, 0 broken, 0 not reached"),
        (("{site}/there", "{site}/gone"), 1, "1 links to other sites followed, 1 broken, 0 not reached"),
        (("{site}/there#no-such-part",), 1, "1 broken"),
        (("{site}/there", "{site}/busy"), 3, "1 links to other sites followed, 0 broken, 1 not reached"),
        (("{site}/there", NOBODY), 3, "1 links to other sites followed, 0 broken, 1 not reached"),
        (("{site}/gone", NOBODY), 1, "1 broken, 1 not reached"),
    ],
    ids=["all there", "gone", "no such anchor", "unavailable", "nobody answers", "both"],
)
def test_links_to_other_sites(
    build: ModuleType, site: str, links: tuple[str, ...], code: int, told: str, tmp_path: Path, capfd: Any
) -> None:
    write_pages(tmp_path, *(link.format(site=site) for link in links))
    assert build.follow_links(sys.executable, tmp_path, tmp_path / "built") == code
    said = capfd.readouterr().out
    assert told in said
    for link in links:
        if "gone" in link or "no-such" in link:
            assert f"broken: index.md:{links.index(link) + 3}: {link.format(site=site)}: " in said
        if link == NOBODY:
            assert f"not reached from here: index.md:{links.index(link) + 3}: {NOBODY}: " in said


BAD_LINKS = ["#no-such-part", "no-such-page.md", "index.md#no-such-part"]
HTML = ("html", "--fail-on-warning", "--keep-going")


def test_links_within_the_site(build: ModuleType, tmp_path: Path) -> None:
    write_pages(tmp_path, "#a-part", "index.md#a-part")
    assert build.sphinx(sys.executable, *HTML, source=tmp_path, work=tmp_path / "built") == 0


@pytest.fixture(scope="module")
def said_of_bad_links(build: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the build, which fails, says of a page with each of them."""
    folder = tmp_path_factory.mktemp("bad_links")
    write_pages(folder, "#a-part", *BAD_LINKS)
    log = folder / "log"
    options = (*HTML, "--warning-file", str(log))
    assert build.sphinx(sys.executable, *options, source=folder, work=folder / "built") != 0
    return log.read_text(encoding="utf-8")


@pytest.mark.parametrize("link", BAD_LINKS)
def test_links_within_the_site_fail_the_build(said_of_bad_links: str, link: str) -> None:
    assert f"index.md:{BAD_LINKS.index(link) + 4}: WARNING: " in said_of_bad_links, said_of_bad_links
